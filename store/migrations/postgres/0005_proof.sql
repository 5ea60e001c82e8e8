-- Proof that partners hold what they accepted, and the same proof given to those who send here.

-- How that was proven, or why it was not; when the partner is asked next, and how often it was.
ALTER TABLE transfer ADD COLUMN proven_by TEXT COLLATE "C";
ALTER TABLE transfer ADD COLUMN unproven_why TEXT COLLATE "C";
ALTER TABLE transfer ADD COLUMN proof_due BIGINT;
ALTER TABLE transfer ADD COLUMN proof_tries BIGINT NOT NULL DEFAULT 0;
CREATE INDEX transfer_to_prove ON transfer (partner, proof_due) WHERE proof_due IS NOT NULL;

-- When the partner proved that it holds it, and how often it turned out not to hold what it had accepted.
ALTER TABLE delivery ADD COLUMN confirmed_at BIGINT;
ALTER TABLE delivery ADD COLUMN losses BIGINT NOT NULL DEFAULT 0;
CREATE INDEX delivery_confirmed ON delivery (transfer) WHERE confirmed_at IS NOT NULL;

-- What partners were asked to commit to (PS3.4 Annex J), so that a report is believed for that and nothing else.
CREATE TABLE commitment (
    id       BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uid      TEXT COLLATE "C" NOT NULL UNIQUE,
    partner  TEXT COLLATE "C" NOT NULL,
    asked_at BIGINT NOT NULL
);
CREATE INDEX commitment_oldest ON commitment (asked_at);
CREATE TABLE commitment_delivery (
    commitment BIGINT NOT NULL REFERENCES commitment (id),
    delivery   BIGINT NOT NULL REFERENCES delivery (id),
    PRIMARY KEY (commitment, delivery)
);

-- What senders asked this node to commit to. The verdict is given once; it is due until it was reported or given up.
CREATE TABLE commitment_request (
    id        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sender    TEXT COLLATE "C" NOT NULL,
    uid       TEXT COLLATE "C" NOT NULL,
    called    TEXT COLLATE "C" NOT NULL,
    asked_at  BIGINT NOT NULL,
    instances TEXT COLLATE "C" NOT NULL,
    verdict   TEXT COLLATE "C",
    due       BIGINT,
    tries     BIGINT NOT NULL DEFAULT 0,
    UNIQUE (sender, uid)
);
CREATE INDEX commitment_request_due ON commitment_request (due) WHERE due IS NOT NULL;
CREATE INDEX commitment_request_done ON commitment_request (asked_at) WHERE due IS NULL;

-- Proof that partners hold what they accepted, and the same proof given to those who send here.

-- How that was proven, or why it was not; when the partner is asked next, and how often it was.
ALTER TABLE transfer ADD COLUMN proven_by TEXT;
ALTER TABLE transfer ADD COLUMN unproven_why TEXT;
ALTER TABLE transfer ADD COLUMN proof_due INTEGER;
ALTER TABLE transfer ADD COLUMN proof_tries INTEGER NOT NULL DEFAULT 0;
CREATE INDEX transfer_to_prove ON transfer (partner, proof_due) WHERE proof_due IS NOT NULL;

-- When the partner proved that it holds it, and how often it turned out not to hold what it had accepted.
ALTER TABLE delivery ADD COLUMN confirmed_at INTEGER;
ALTER TABLE delivery ADD COLUMN losses INTEGER NOT NULL DEFAULT 0;
CREATE INDEX delivery_confirmed ON delivery (transfer) WHERE confirmed_at IS NOT NULL;

-- What partners were asked to commit to (PS3.4 Annex J), so that a report is believed for that and nothing else.
CREATE TABLE commitment (
    id       INTEGER PRIMARY KEY,
    uid      TEXT NOT NULL UNIQUE,
    partner  TEXT NOT NULL,
    asked_at INTEGER NOT NULL
) STRICT;
CREATE INDEX commitment_oldest ON commitment (asked_at);
CREATE TABLE commitment_delivery (
    commitment INTEGER NOT NULL REFERENCES commitment (id),
    delivery   INTEGER NOT NULL REFERENCES delivery (id),
    PRIMARY KEY (commitment, delivery)
) STRICT;

-- What senders asked this node to commit to. The verdict is given once; it is due until it was reported or given up.
CREATE TABLE commitment_request (
    id        INTEGER PRIMARY KEY,
    sender    TEXT NOT NULL,
    uid       TEXT NOT NULL,
    called    TEXT NOT NULL,
    asked_at  INTEGER NOT NULL,
    instances TEXT NOT NULL,
    verdict   TEXT,
    due       INTEGER,
    tries     INTEGER NOT NULL DEFAULT 0,
    UNIQUE (sender, uid)
) STRICT;
CREATE INDEX commitment_request_due ON commitment_request (due) WHERE due IS NOT NULL;
CREATE INDEX commitment_request_done ON commitment_request (asked_at) WHERE due IS NULL;

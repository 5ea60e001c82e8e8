-- What the nodes on this database hold, and where each instance stands on its way to each partner: the tables of SQLite,
-- with PostgreSQL's words. Texts sort by their bytes, as they do there.
--
-- Times are milliseconds since 1970 (UTC), booleans 0 or 1, enumerations the words that the program prints. The sealed
-- header of an object repeats what is said of it here, so all but transfers and their timelines can be built again.

-- Whom a study is about, as far as an identifier says: the raw text of Patient ID and of its issuer ('' where absent).
-- What else is known of the patient stands with the study it came with: two organisations that name no issuer use the
-- same number for two people, and the name of one must not appear over the images of the other.
CREATE TABLE patient (
    id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    issuer     TEXT COLLATE "C" NOT NULL,
    patient_id TEXT COLLATE "C" NOT NULL,
    -- SHA-256 of both. An index of the texts themselves would refuse those that are longer than the standard allows, and
    -- so would one by value; one by hash does not.
    identity   BYTEA NOT NULL UNIQUE
);
CREATE INDEX patient_by_id ON patient USING hash (patient_id);

CREATE TABLE study (
    id                BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uid               TEXT COLLATE "C" NOT NULL UNIQUE,
    patient           BIGINT REFERENCES patient (id),
    patient_name      TEXT COLLATE "C",
    birth_date        TEXT COLLATE "C",
    sex               TEXT COLLATE "C",
    study_date        TEXT COLLATE "C",
    study_time        TEXT COLLATE "C",
    accession_number  TEXT COLLATE "C",
    study_id          TEXT COLLATE "C",
    description       TEXT COLLATE "C",
    referring         TEXT COLLATE "C",
    patient_conflict  BIGINT NOT NULL DEFAULT 0,
    -- NULL while all that came of it is in quarantine: such a study shows nowhere.
    first_received_at BIGINT,
    last_received_at  BIGINT
);
CREATE INDEX study_newest ON study (last_received_at, id);
CREATE INDEX study_of_patient ON study (patient);
CREATE INDEX study_by_accession ON study USING hash (accession_number);

CREATE TABLE series (
    id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    study       BIGINT NOT NULL REFERENCES study (id),
    uid         TEXT COLLATE "C" NOT NULL,
    modality    TEXT COLLATE "C",
    number      BIGINT,
    description TEXT COLLATE "C",
    body_part   TEXT COLLATE "C",
    UNIQUE (study, uid)
);

CREATE TABLE instance (
    id              BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    object          TEXT COLLATE "C" NOT NULL UNIQUE,
    series          BIGINT NOT NULL REFERENCES series (id),
    sop_instance    TEXT COLLATE "C" NOT NULL,
    version         BIGINT NOT NULL,
    sop_class       TEXT COLLATE "C" NOT NULL,
    transfer_syntax TEXT COLLATE "C" NOT NULL,
    length          BIGINT NOT NULL,
    digest          BYTEA NOT NULL,
    number          BIGINT,
    rows            BIGINT,
    columns         BIGINT,
    frames          BIGINT,
    sender          TEXT COLLATE "C" NOT NULL,
    from_partner    BIGINT NOT NULL,
    received_at     BIGINT NOT NULL,
    quarantined     BIGINT NOT NULL,
    stored          BIGINT NOT NULL DEFAULT 0,
    UNIQUE (sop_instance, version)
);
CREATE INDEX instance_of_series ON instance (series, quarantined, version, length);
CREATE INDEX instance_unstored ON instance (id) WHERE stored = 0;
CREATE INDEX instance_quarantined ON instance (id) WHERE quarantined = 1;

CREATE TABLE transfer (
    id               BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ulid             TEXT COLLATE "C" NOT NULL UNIQUE,
    study            BIGINT NOT NULL REFERENCES study (id),
    partner          TEXT COLLATE "C" NOT NULL,
    route            TEXT COLLATE "C" NOT NULL,
    purpose          TEXT COLLATE "C" NOT NULL,
    priority         BIGINT NOT NULL,
    created_at       BIGINT NOT NULL,
    last_received_at BIGINT NOT NULL,
    -- The last association ended, and nothing came since; and the timeline says that all were sent.
    received_all_at  BIGINT,
    all_sent_at      BIGINT,
    paused_at        BIGINT,
    paused_by        TEXT COLLATE "C",
    paused_why       TEXT COLLATE "C",
    cancelled_at     BIGINT,
    cancelled_by     TEXT COLLATE "C",
    cancelled_why    TEXT COLLATE "C",
    UNIQUE (study, partner)
);
CREATE INDEX transfer_newest ON transfer (created_at, id);
CREATE INDEX transfer_receiving ON transfer (id) WHERE received_all_at IS NULL;

CREATE TABLE transfer_event (
    id       BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    transfer BIGINT NOT NULL REFERENCES transfer (id),
    at       BIGINT NOT NULL,
    kind     TEXT COLLATE "C" NOT NULL,
    actor    TEXT COLLATE "C",
    detail   TEXT COLLATE "C",
    failure  TEXT COLLATE "C"
);
CREATE INDEX transfer_event_of_transfer ON transfer_event (transfer, id);

CREATE TABLE delivery (
    id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    transfer    BIGINT NOT NULL REFERENCES transfer (id),
    instance    BIGINT NOT NULL REFERENCES instance (id),
    partner     TEXT COLLATE "C" NOT NULL,
    priority    BIGINT NOT NULL,
    state       TEXT COLLATE "C" NOT NULL
                CHECK (state IN ('queued', 'sending', 'deferred', 'delivered', 'failed', 'cancelled')),
    -- How often it was begun since a person last asked for it, and how often the process died over it.
    attempt     BIGINT NOT NULL DEFAULT 0,
    deaths      BIGINT NOT NULL DEFAULT 0,
    -- When it may be claimed: 0 is now, NULL never (finished, or its transfer is paused). What decides it is until:
    -- of a deferred one the next try, of one being sent the end of the lease that its owner holds.
    due         BIGINT,
    until       BIGINT,
    owner       TEXT COLLATE "C",
    failure     TEXT COLLATE "C",
    status      BIGINT,
    why         TEXT COLLATE "C",
    sent_syntax TEXT COLLATE "C",
    sent_digest BYTEA,
    sent_at     BIGINT,
    UNIQUE (instance, transfer)
);
-- Claims read its first entries, in their order, and lock them; they never see the backlog behind them.
CREATE INDEX delivery_claim ON delivery (partner, priority, id) WHERE due = 0;
-- What becomes claimable in time, and whether anything is.
CREATE INDEX delivery_due ON delivery (partner, priority, due) WHERE due IS NOT NULL;
CREATE INDEX delivery_deferred ON delivery (partner, until) WHERE state = 'deferred' AND due IS NOT NULL;
CREATE INDEX delivery_owned ON delivery (owner) WHERE state = 'sending';
-- Counts are read from this one alone.
CREATE INDEX delivery_of_transfer ON delivery (transfer, state, until, sent_at, status);
CREATE INDEX delivery_unfinished ON delivery (transfer) WHERE state IN ('queued', 'sending', 'deferred', 'failed');

-- What this node holds, and where each instance stands on its way to each partner.
--
-- Times are milliseconds since 1970 (UTC), booleans 0 or 1, enumerations the words that the program prints. The sealed
-- header of an object repeats what is said of it here, so all but transfers and their timelines can be built again.

-- Whom a study is about, as far as an identifier says: the raw text of Patient ID and of its issuer ('' where absent).
-- What else is known of the patient stands with the study it came with: two organisations that name no issuer use the
-- same number for two people, and the name of one must not appear over the images of the other.
CREATE TABLE patient (
    id         INTEGER PRIMARY KEY,
    issuer     TEXT NOT NULL,
    patient_id TEXT NOT NULL,
    UNIQUE (patient_id, issuer)
) STRICT;

CREATE TABLE study (
    id                INTEGER PRIMARY KEY,
    uid               TEXT NOT NULL UNIQUE,
    patient           INTEGER REFERENCES patient (id),
    patient_name      TEXT,
    birth_date        TEXT,
    sex               TEXT,
    study_date        TEXT,
    study_time        TEXT,
    accession_number  TEXT,
    study_id          TEXT,
    description       TEXT,
    referring         TEXT,
    patient_conflict  INTEGER NOT NULL DEFAULT 0,
    -- NULL while all that came of it is in quarantine: such a study shows nowhere.
    first_received_at INTEGER,
    last_received_at  INTEGER
) STRICT;
CREATE INDEX study_newest ON study (last_received_at, id);
CREATE INDEX study_of_patient ON study (patient);
CREATE INDEX study_by_accession ON study (accession_number);

CREATE TABLE series (
    id          INTEGER PRIMARY KEY,
    study       INTEGER NOT NULL REFERENCES study (id),
    uid         TEXT NOT NULL,
    modality    TEXT,
    number      INTEGER,
    description TEXT,
    body_part   TEXT,
    UNIQUE (study, uid)
) STRICT;

CREATE TABLE instance (
    id              INTEGER PRIMARY KEY,
    object          TEXT NOT NULL UNIQUE,
    series          INTEGER NOT NULL REFERENCES series (id),
    sop_instance    TEXT NOT NULL,
    version         INTEGER NOT NULL,
    sop_class       TEXT NOT NULL,
    transfer_syntax TEXT NOT NULL,
    length          INTEGER NOT NULL,
    digest          BLOB NOT NULL,
    number          INTEGER,
    rows            INTEGER,
    columns         INTEGER,
    frames          INTEGER,
    sender          TEXT NOT NULL,
    from_partner    INTEGER NOT NULL,
    received_at     INTEGER NOT NULL,
    quarantined     INTEGER NOT NULL,
    stored          INTEGER NOT NULL DEFAULT 0,
    UNIQUE (sop_instance, version)
) STRICT;
CREATE INDEX instance_of_series ON instance (series, quarantined, version, length);
CREATE INDEX instance_unstored ON instance (id) WHERE stored = 0;
CREATE INDEX instance_quarantined ON instance (id) WHERE quarantined = 1;

CREATE TABLE transfer (
    id               INTEGER PRIMARY KEY,
    ulid             TEXT NOT NULL UNIQUE,
    study            INTEGER NOT NULL REFERENCES study (id),
    partner          TEXT NOT NULL,
    route            TEXT NOT NULL,
    purpose          TEXT NOT NULL,
    priority         INTEGER NOT NULL,
    created_at       INTEGER NOT NULL,
    last_received_at INTEGER NOT NULL,
    -- The last association ended, and nothing came since; and the timeline says that all were sent.
    received_all_at  INTEGER,
    all_sent_at      INTEGER,
    paused_at        INTEGER,
    paused_by        TEXT,
    paused_why       TEXT,
    cancelled_at     INTEGER,
    cancelled_by     TEXT,
    cancelled_why    TEXT,
    UNIQUE (study, partner)
) STRICT;
CREATE INDEX transfer_newest ON transfer (created_at, id);
CREATE INDEX transfer_receiving ON transfer (id) WHERE received_all_at IS NULL;

CREATE TABLE transfer_event (
    id       INTEGER PRIMARY KEY,
    transfer INTEGER NOT NULL REFERENCES transfer (id),
    at       INTEGER NOT NULL,
    kind     TEXT NOT NULL,
    actor    TEXT,
    detail   TEXT,
    failure  TEXT
) STRICT;
CREATE INDEX transfer_event_of_transfer ON transfer_event (transfer, id);

CREATE TABLE delivery (
    id          INTEGER PRIMARY KEY,
    transfer    INTEGER NOT NULL REFERENCES transfer (id),
    instance    INTEGER NOT NULL REFERENCES instance (id),
    partner     TEXT NOT NULL,
    priority    INTEGER NOT NULL,
    state       TEXT NOT NULL
                CHECK (state IN ('queued', 'sending', 'deferred', 'delivered', 'failed', 'cancelled')),
    -- How often it was begun since a person last asked for it, and how often the process died over it.
    attempt     INTEGER NOT NULL DEFAULT 0,
    deaths      INTEGER NOT NULL DEFAULT 0,
    -- When it may be claimed: 0 is now, NULL never (finished, or its transfer is paused). What decides it is until:
    -- of a deferred one the next try, of one being sent the end of the lease that its owner holds.
    due         INTEGER,
    until       INTEGER,
    owner       TEXT,
    failure     TEXT,
    status      INTEGER,
    why         TEXT,
    sent_syntax TEXT,
    sent_digest BLOB,
    sent_at     INTEGER,
    UNIQUE (instance, transfer)
) STRICT;
-- Claims read its first entries (due = 0, then by arrival) and never the backlog behind them.
CREATE INDEX delivery_claim ON delivery (partner, priority, due, id) WHERE due IS NOT NULL;
CREATE INDEX delivery_deferred ON delivery (partner, until) WHERE state = 'deferred' AND due IS NOT NULL;
CREATE INDEX delivery_owned ON delivery (owner) WHERE state = 'sending';
-- Counts are read from this one alone.
CREATE INDEX delivery_of_transfer ON delivery (transfer, state, until, sent_at, status);
CREATE INDEX delivery_unfinished ON delivery (transfer) WHERE state IN ('queued', 'sending', 'deferred', 'failed');

-- One row, which every commit that must be on the disk changes.
CREATE TABLE synced (times INTEGER NOT NULL) STRICT;
INSERT INTO synced (times) VALUES (0);

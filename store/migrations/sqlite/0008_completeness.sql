-- Whether what came of a study is all that its source has.

-- One row for each study that came: what its source said last, and when it is asked next.
CREATE TABLE completeness (
    study      INTEGER PRIMARY KEY REFERENCES study (id),
    state      TEXT NOT NULL DEFAULT 'not-asked'
               CHECK (state IN ('not-asked', 'no-source', 'unanswered', 'complete', 'incomplete')),
    source     TEXT,
    -- When the source last said what it has; how many images that is, how many of them are not here, and how many are here
    -- that it does not list.
    asked_at   INTEGER,
    expected   INTEGER,
    missing    INTEGER,
    surplus    INTEGER,
    -- Why it did not answer the last time, and how often in a row it did not.
    why        TEXT,
    tries      INTEGER NOT NULL DEFAULT 0,
    -- What timelines say of it.
    said       TEXT,
    -- The latest arrival that no count has followed after the quiet time; and when it is asked whatever has come.
    changed_at INTEGER,
    due        INTEGER,
    -- When what is missing is fetched; how often that was of no use, when it was last tried and why it failed.
    fetch_due  INTEGER,
    fetches    INTEGER NOT NULL DEFAULT 0,
    fetched_at INTEGER,
    fetch_why  TEXT
) STRICT;
CREATE INDEX completeness_due ON completeness (due) WHERE due IS NOT NULL;
CREATE INDEX completeness_changed ON completeness (changed_at) WHERE changed_at IS NOT NULL;
CREATE INDEX completeness_fetch ON completeness (fetch_due) WHERE fetch_due IS NOT NULL;
CREATE INDEX completeness_fetched ON completeness (fetched_at) WHERE fetched_at IS NOT NULL;
CREATE INDEX completeness_incomplete ON completeness (study) WHERE state = 'incomplete';

-- The series that the source listed the last time.
CREATE TABLE counted_series (
    study       INTEGER NOT NULL REFERENCES study (id),
    uid         TEXT NOT NULL,
    number      INTEGER,
    modality    TEXT,
    description TEXT,
    expected    INTEGER NOT NULL,
    missing     INTEGER NOT NULL,
    PRIMARY KEY (study, uid)
) STRICT;

-- The ways in which a study came from sources: what is fetched of it later goes where it would have gone in these.
CREATE TABLE study_way (
    study    INTEGER NOT NULL REFERENCES study (id),
    sender   TEXT NOT NULL,
    listener TEXT NOT NULL,
    calling  TEXT NOT NULL,
    called   TEXT NOT NULL,
    PRIMARY KEY (study, sender, listener, calling, called)
) STRICT;

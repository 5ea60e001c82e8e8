-- Whether what came of a study is all that its source has.

-- One row for each study that came: what its source said last, and when it is asked next.
CREATE TABLE completeness (
    study      BIGINT PRIMARY KEY REFERENCES study (id),
    state      TEXT COLLATE "C" NOT NULL DEFAULT 'not-asked'
               CHECK (state IN ('not-asked', 'no-source', 'unanswered', 'complete', 'incomplete')),
    source     TEXT COLLATE "C",
    -- When the source last said what it has; how many images that is, how many of them are not here, and how many are here
    -- that it does not list.
    asked_at   BIGINT,
    expected   BIGINT,
    missing    BIGINT,
    surplus    BIGINT,
    -- Why it did not answer the last time, and how often in a row it did not.
    why        TEXT COLLATE "C",
    tries      BIGINT NOT NULL DEFAULT 0,
    -- What timelines say of it.
    said       TEXT COLLATE "C",
    -- The latest arrival that no count has followed after the quiet time; and when it is asked whatever has come.
    changed_at BIGINT,
    due        BIGINT,
    -- When what is missing is fetched; how often that was of no use, when it was last tried and why it failed.
    fetch_due  BIGINT,
    fetches    BIGINT NOT NULL DEFAULT 0,
    fetched_at BIGINT,
    fetch_why  TEXT COLLATE "C"
);
CREATE INDEX completeness_due ON completeness (due) WHERE due IS NOT NULL;
CREATE INDEX completeness_changed ON completeness (changed_at) WHERE changed_at IS NOT NULL;
CREATE INDEX completeness_fetch ON completeness (fetch_due) WHERE fetch_due IS NOT NULL;
CREATE INDEX completeness_fetched ON completeness (fetched_at) WHERE fetched_at IS NOT NULL;
CREATE INDEX completeness_incomplete ON completeness (study) WHERE state = 'incomplete';

-- The series that the source listed the last time.
CREATE TABLE counted_series (
    study       BIGINT NOT NULL REFERENCES study (id),
    uid         TEXT COLLATE "C" NOT NULL,
    number      BIGINT,
    modality    TEXT COLLATE "C",
    description TEXT COLLATE "C",
    expected    BIGINT NOT NULL,
    missing     BIGINT NOT NULL,
    PRIMARY KEY (study, uid)
);

-- The ways in which a study came from sources: what is fetched of it later goes where it would have gone in these.
CREATE TABLE study_way (
    study    BIGINT NOT NULL REFERENCES study (id),
    sender   TEXT COLLATE "C" NOT NULL,
    listener TEXT COLLATE "C" NOT NULL,
    calling  TEXT COLLATE "C" NOT NULL,
    called   TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (study, sender, listener, calling, called)
);

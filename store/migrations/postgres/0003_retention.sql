-- How long images are kept. Rows of what was removed stay: they are the record of what was received and disclosed.

-- When the far end proved that it holds all of it.
ALTER TABLE transfer ADD COLUMN confirmed_at BIGINT;

-- A legal hold that stands, and the latest removal if nothing came back since.
ALTER TABLE study ADD COLUMN held_at BIGINT;
ALTER TABLE study ADD COLUMN held_by TEXT COLLATE "C";
ALTER TABLE study ADD COLUMN held_why TEXT COLLATE "C";
ALTER TABLE study ADD COLUMN removed_at BIGINT;
ALTER TABLE study ADD COLUMN removed_by TEXT COLLATE "C";
ALTER TABLE study ADD COLUMN removed_why TEXT COLLATE "C";

ALTER TABLE instance ADD COLUMN removed_at BIGINT;
CREATE INDEX instance_kept ON instance (series) WHERE removed_at IS NULL AND quarantined = 0;

-- Every hold, release and removal of a study's images: who, when and why.
CREATE TABLE study_event (
    id    BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    study BIGINT NOT NULL REFERENCES study (id),
    at    BIGINT NOT NULL,
    kind  TEXT COLLATE "C" NOT NULL,
    actor TEXT COLLATE "C",
    why   TEXT COLLATE "C"
);
CREATE INDEX study_event_of_study ON study_event (study, id);

-- What was decided to be removed. The decision comes first; done_at says that object and spool file are gone. Whatever finds an
-- object that is named here finishes its removal, and never records it anew.
CREATE TABLE deletion (
    object       TEXT COLLATE "C" PRIMARY KEY,
    sop_instance TEXT COLLATE "C" NOT NULL,
    study        TEXT COLLATE "C" NOT NULL,
    digest       BYTEA NOT NULL,
    length       BIGINT NOT NULL,
    at           BIGINT NOT NULL,
    actor        TEXT COLLATE "C",
    rule         TEXT COLLATE "C",
    why          TEXT COLLATE "C",
    done_at      BIGINT
);
CREATE INDEX deletion_unfinished ON deletion (object) WHERE done_at IS NULL;

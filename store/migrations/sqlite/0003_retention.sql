-- How long images are kept. Rows of what was removed stay: they are the record of what was received and disclosed.

-- When the far end proved that it holds all of it.
ALTER TABLE transfer ADD COLUMN confirmed_at INTEGER;

-- A legal hold that stands, and the latest removal if nothing came back since.
ALTER TABLE study ADD COLUMN held_at INTEGER;
ALTER TABLE study ADD COLUMN held_by TEXT;
ALTER TABLE study ADD COLUMN held_why TEXT;
ALTER TABLE study ADD COLUMN removed_at INTEGER;
ALTER TABLE study ADD COLUMN removed_by TEXT;
ALTER TABLE study ADD COLUMN removed_why TEXT;

ALTER TABLE instance ADD COLUMN removed_at INTEGER;
CREATE INDEX instance_kept ON instance (series) WHERE removed_at IS NULL AND quarantined = 0;

-- Every hold, release and removal of a study's images: who, when and why.
CREATE TABLE study_event (
    id    INTEGER PRIMARY KEY,
    study INTEGER NOT NULL REFERENCES study (id),
    at    INTEGER NOT NULL,
    kind  TEXT NOT NULL,
    actor TEXT,
    why   TEXT
) STRICT;
CREATE INDEX study_event_of_study ON study_event (study, id);

-- What was decided to be removed. The decision comes first; done_at says that object and spool file are gone. Whatever finds an
-- object that is named here finishes its removal, and never records it anew.
CREATE TABLE deletion (
    object       TEXT PRIMARY KEY,
    sop_instance TEXT NOT NULL,
    study        TEXT NOT NULL,
    digest       BLOB NOT NULL,
    length       INTEGER NOT NULL,
    at           INTEGER NOT NULL,
    actor        TEXT,
    rule         TEXT,
    why          TEXT,
    done_at      INTEGER
) STRICT;
CREATE INDEX deletion_unfinished ON deletion (object) WHERE done_at IS NULL;

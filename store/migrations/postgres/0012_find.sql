-- Finding: what studies are searched by, and with whom they are shared.

-- Patient's Name by its component groups, and Referring Physician's Name, without case and accents; Study Date as a number
-- (YYYYMMDD). SQL cannot fold: rows from before this step are folded by the program, and until then findable is 0.
ALTER TABLE study ADD COLUMN name_folded TEXT COLLATE "C";
ALTER TABLE study ADD COLUMN name_ideographic TEXT COLLATE "C";
ALTER TABLE study ADD COLUMN name_phonetic TEXT COLLATE "C";
ALTER TABLE study ADD COLUMN referring_folded TEXT COLLATE "C";
ALTER TABLE study ADD COLUMN study_day BIGINT;
ALTER TABLE study ADD COLUMN findable BIGINT NOT NULL DEFAULT 0;
CREATE INDEX study_by_name ON study (name_folded, id);
CREATE INDEX study_by_ideographic ON study (name_ideographic) WHERE name_ideographic IS NOT NULL;
CREATE INDEX study_by_phonetic ON study (name_phonetic) WHERE name_phonetic IS NOT NULL;
CREATE INDEX study_by_day ON study (study_day, id);
CREATE INDEX study_to_fold ON study (id) WHERE findable = 0;

-- What else is said of a series. NULL: not known, as of all that came before this step.
ALTER TABLE series ADD COLUMN series_date TEXT COLLATE "C";
ALTER TABLE series ADD COLUMN series_time TEXT COLLATE "C";
ALTER TABLE series ADD COLUMN protocol TEXT COLLATE "C";
ALTER TABLE series ADD COLUMN laterality TEXT COLLATE "C";
ALTER TABLE series ADD COLUMN station TEXT COLLATE "C";
CREATE INDEX series_by_uid ON series (uid);

-- Counts, SOP classes and senders of a study are read from this one alone.
DROP INDEX instance_kept;
CREATE INDEX instance_kept ON instance (series, sender, from_partner, version, sop_class)
    WHERE removed_at IS NULL AND quarantined = 0;

-- What a partner may find because it is addressed to it, and under which protection.
CREATE INDEX transfer_of_partner ON transfer (partner, study) WHERE cancelled_at IS NULL;
CREATE INDEX delivery_protected ON delivery (transfer, protection) WHERE protection IS NOT NULL;

-- What a partner may find because a person let it, until when (NULL: without end), and under which protection (NULL: as it
-- was received). What was revoked stays on record.
CREATE TABLE share (
    id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    study      BIGINT NOT NULL REFERENCES study (id),
    partner    TEXT COLLATE "C" NOT NULL,
    protection TEXT COLLATE "C",
    until      BIGINT,
    reason     TEXT COLLATE "C" NOT NULL,
    shared_by  TEXT COLLATE "C" NOT NULL,
    shared_at  BIGINT NOT NULL,
    revoked_at BIGINT,
    revoked_by TEXT COLLATE "C"
);
CREATE INDEX share_of_study ON share (study, partner);
CREATE INDEX share_of_partner ON share (partner, study) WHERE revoked_at IS NULL;

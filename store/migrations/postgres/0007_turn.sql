-- What an instance shows (0 a scout, 1 a thick axial slice, 2 anything else, 3 a thin slice), which scout and which series
-- go first when a transfer is an emergency, and in which turn each delivery goes by that. What was there before goes as it came.
ALTER TABLE instance ADD COLUMN view BIGINT NOT NULL DEFAULT 2;
ALTER TABLE transfer ADD COLUMN scout TEXT COLLATE "C";
ALTER TABLE transfer ADD COLUMN overview TEXT COLLATE "C";
ALTER TABLE delivery ADD COLUMN turn BIGINT NOT NULL DEFAULT 2;
DROP INDEX delivery_claim;
CREATE INDEX delivery_claim ON delivery (partner, priority, turn, id) WHERE due = 0;
-- When a person last asked for it anew: what is given up after a time counts from there.
ALTER TABLE transfer ADD COLUMN retried_at BIGINT;

-- Who decided that the partner should not have had it, when and why; under which SOP Instance UID a note of that goes to the
-- partner, where it takes one; when that was made, what it rejects, and when the partner accepted it.
ALTER TABLE transfer ADD COLUMN recalled_at INTEGER;
ALTER TABLE transfer ADD COLUMN recalled_by TEXT;
ALTER TABLE transfer ADD COLUMN recalled_why TEXT;
ALTER TABLE transfer ADD COLUMN recall_code TEXT;
ALTER TABLE transfer ADD COLUMN recall_note TEXT;
ALTER TABLE transfer ADD COLUMN recall_made_at INTEGER;
ALTER TABLE transfer ADD COLUMN recall_images INTEGER NOT NULL DEFAULT 0;
ALTER TABLE transfer ADD COLUMN recall_accepted_at INTEGER;
CREATE INDEX transfer_to_note ON transfer (id) WHERE recall_note IS NOT NULL AND recall_made_at IS NULL;

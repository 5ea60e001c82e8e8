-- Since when no whole copy of an instance is known: NULL as long as all is well. The same bytes, sent again, are then kept.
ALTER TABLE instance ADD COLUMN lost_at INTEGER;

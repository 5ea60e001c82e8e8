-- Under which protection a delivery goes; none: as it was received. And how a partner knows an instance that it was asked to
-- commit to, where that is not its own UID.
ALTER TABLE delivery ADD COLUMN protection TEXT;
ALTER TABLE commitment_delivery ADD COLUMN asked_as TEXT;

-- Under which protection a delivery goes; none: as it was received. And how a partner knows an instance that it was asked to
-- commit to, where that is not its own UID.
ALTER TABLE delivery ADD COLUMN protection TEXT;
ALTER TABLE commitment_delivery ADD COLUMN asked_as TEXT;
-- For the few pages that count them, among millions that go as received.
CREATE INDEX delivery_protection ON delivery (protection, state) WHERE protection IS NOT NULL;

-- What was sent together: studies of one patient to one partner.
ALTER TABLE transfer ADD COLUMN parcel TEXT;
CREATE INDEX transfer_parcel ON transfer (parcel) WHERE parcel IS NOT NULL;

-- What a restore brought back from the bucket, without a row in the backup, and what of it is not
-- known: names of fields. Null: nothing was brought back.

alter table document
    add column recovered_at timestamptz,
    add column not_known    text[];
alter table porting_order
    add column recovered_at timestamptz,
    add column not_known    text[];
alter table hold
    add column recovered_at timestamptz,
    add column not_known    text[];

-- What a restore could not tell and what keeps documents depends on: nothing goes by its time until
-- two people have agreed. Null: nothing is in doubt.
alter table expiry_clock add column doubt text;

-- A fax that a restore brought back from the bucket, without its row, and what of it is not known.

alter table fax
    add column recovered_at timestamptz,
    add column not_known    text[];

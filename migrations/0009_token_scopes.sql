-- How far a token reaches, who made it, and when it was last used.
-- What is null is not narrowed: all customers, all kinds, no certificate.

alter table token
    add column customers    text[],
    add column kinds        text[],
    add column located      text,
    add column certificate  bytea,
    add column created_by   text,
    add column last_used_at timestamptz;

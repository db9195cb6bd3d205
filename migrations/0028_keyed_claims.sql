-- What tells two requests with one Idempotency-Key apart is a MAC under the data key of what the
-- first one made, and dies with it. What was kept before was a plain hash: it goes.

delete from idempotency;
alter table idempotency alter column fingerprint drop not null;
-- What is shredded takes its claim along.
create index idempotency_resource on idempotency (resource);

-- The listener's keys were a plain hash of a recipient's number, too.
alter table fax alter column fingerprint drop not null;
update fax set fingerprint = null,
    idempotency_key = case when idempotency_key like 'smtp-%' then null else idempotency_key end;
-- Keys that are to be forgotten after a day.
create index fax_claimed on fax (region, received_at) where idempotency_key is not null;

-- Carriers that give their events no id: each had a plain hash of what it said, numbers included.
update order_event set event = gen_random_uuid()::text where source in ('twilio', 'bandwidth');

-- A record goes in with nothing to look it up by: who waits for it to be durable waits for that
-- alone. What is searched stands beside its place in the log, written by the sequencer in batches.

alter table access_record drop constraint access_record_phase_check;
alter table access_record add constraint access_record_phase_check
    check (phase in ('intent', 'progress', 'outcome'));

drop index access_record_page;
drop index access_record_document;
drop index access_record_order;
drop index access_record_intent;
drop index access_record_allowed;

-- A leaf outlives its record, whose body is dropped when the log's own retention has lapsed.
alter table log_leaf drop constraint log_leaf_record_fkey;
alter table log_leaf
    add column at        timestamptz,
    add column action    text,
    add column principal text,
    add column document  uuid,
    add column "order"   uuid,
    add column purpose   text,
    add column decision  text,
    add column region_to text;

alter table log_leaf disable trigger log_leaf_insert_only;
update log_leaf l set at = r.at, action = r.action, principal = r.principal,
    document = r.document, "order" = r."order", purpose = r.purpose, decision = r.decision,
    region_to = r.region_to
from access_record r where r.id = l.record;
alter table log_leaf enable trigger log_leaf_insert_only;

create index log_leaf_at on log_leaf (region, at desc, record desc);
create index log_leaf_principal on log_leaf (region, principal, at desc, record desc);
create index log_leaf_document on log_leaf (document) where document is not null;
create index log_leaf_order on log_leaf ("order") where "order" is not null;
create index log_leaf_purpose on log_leaf (region, purpose, at desc, record desc)
    where purpose is not null;
create index log_leaf_refused on log_leaf (region, at desc, record desc) where decision = 'deny';
create index log_leaf_transfer on log_leaf (region, at desc, record desc)
    where region_to <> region;

-- Whatever puts a record in, it waits for its place: this is the table's promise, not the caller's.
alter table log_queue drop constraint log_queue_pkey;
drop index log_queue_region;
alter table log_queue add primary key (region, number);

create function queue_records() returns trigger language plpgsql as $$
begin
    insert into log_queue (record, region) select id, region from made;
    return null;
end
$$;

create trigger access_record_queue after insert on access_record
    referencing new table as made for each statement execute function queue_records();

-- Allowed intents that have a place and no outcome yet.
create table log_open (
    intent uuid primary key,
    region text not null,
    at     timestamptz not null
);

create index log_open_at on log_open (region, at);

insert into log_open (intent, region, at)
select r.id, r.region, r.at from access_record r join log_leaf l on l.record = r.id
where r.phase = 'intent' and r.decision = 'allow'
    and not exists (select from access_record o where o.intent = r.id);

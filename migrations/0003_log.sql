-- The access log: records as they were made, their order, and signed checkpoints over it.
-- Nothing here is ever changed or deleted; the triggers refuse it to everybody who can be refused.

create table access_record (
    id         uuid primary key,
    region     text not null,
    at         timestamptz not null,
    phase      text not null check (phase in ('intent', 'outcome')),
    principal  text not null,
    role       text not null,
    action     text not null,
    intent     uuid,
    document   uuid,
    "order"    uuid,
    kind       text,
    purpose    text,
    reference  text,
    region_to  text,
    basis      text,
    decision   text,
    reason     text,
    result     text,
    size_bytes bigint
);

create index access_record_page on access_record (region, at desc, id desc);
create index access_record_document on access_record (document) where document is not null;
create index access_record_order on access_record ("order") where "order" is not null;
create index access_record_intent on access_record (intent) where intent is not null;
create index access_record_allowed on access_record (region, at)
    where phase = 'intent' and decision = 'allow';

-- Records that have no place in the order yet; a row goes when its leaf is written.
create table log_queue (
    record uuid primary key,
    region text not null,
    number bigint generated always as identity
);

create index log_queue_region on log_queue (region, number);

create table log_leaf (
    region    text not null,
    index     bigint not null,
    record    uuid not null unique references access_record (id),
    leaf_hash bytea not null,
    primary key (region, index)
);

-- `hashes` is the compact range of the tree: the roots of its full subtrees, largest first.
create table log_checkpoint (
    region text not null,
    size   bigint not null,
    hashes bytea[] not null,
    note   text not null,
    at     timestamptz not null,
    primary key (region, size)
);

create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'the access log is only ever added to';
end
$$;

create trigger access_record_insert_only before update or delete or truncate on access_record
    for each statement execute function refuse_change();
create trigger log_leaf_insert_only before update or delete or truncate on log_leaf
    for each statement execute function refuse_change();
create trigger log_checkpoint_insert_only before update or delete or truncate on log_checkpoint
    for each statement execute function refuse_change();

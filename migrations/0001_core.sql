-- Who may come in, the porting orders, and the documents they hold.
-- Names, numbers, file names and references are sealed under keys of the tree; rows say little.

create table token (
    id          uuid primary key,
    secret_hash bytea not null unique,
    label       text not null,
    role        text not null,
    regions     text[] not null,
    created_at  timestamptz not null,
    expires_at  timestamptz,
    revoked_at  timestamptz
);

create table porting_order (
    id          uuid primary key,
    region      text not null,
    customer    text not null,
    status      text not null,
    details     bytea not null,
    created_at  timestamptz not null,
    changed_at  timestamptz not null,
    ended_at    timestamptz
);

create index porting_order_page on porting_order (created_at desc, id desc);
create index porting_order_ended on porting_order (ended_at) where ended_at is not null;

create table document (
    id                uuid primary key,
    region            text not null,
    order_id          uuid not null references porting_order (id),
    kind              text not null,
    custody           text not null check (custody in ('receiving', 'stored', 'shredded', 'sealed')),
    media_type        text,
    size_bytes        bigint,
    stream_header     bytea,
    metadata          bytea,
    received_at       timestamptz not null,
    stored_at         timestamptz,
    shredded_at       timestamptz,
    shred_reason      text,
    shredded_by       text,
    last_generation   bigint,
    purged_at         timestamptz,
    purged_versions   integer,
    sealed_at         timestamptz,
    check (custody <> 'stored' or (media_type is not null and size_bytes is not null
                                   and stream_header is not null and stored_at is not null)),
    check (custody not in ('shredded', 'sealed')
           or (shredded_at is not null and last_generation is not null and metadata is null))
);

create index document_order on document (order_id);
create index document_receiving on document (received_at) where custody = 'receiving';
create index document_stored on document (order_id, kind) where custody = 'stored';
create index document_unpurged on document (region, shredded_at) where shredded_at is not null and purged_at is null;
create index document_unsealed on document (region, last_generation) where custody = 'shredded';

-- An Idempotency-Key of a principal: what it asked for and what it got.
create table idempotency (
    principal   text not null,
    key         text not null,
    fingerprint bytea not null,
    resource    uuid not null,
    created_at  timestamptz not null,
    primary key (principal, key)
);

create table certificate (
    document   uuid primary key references document (id),
    region     text not null,
    note       text not null,
    issued_at  timestamptz not null
);

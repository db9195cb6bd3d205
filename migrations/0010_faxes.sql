-- Faxes: in custody until they are delivered, then a receipt. Numbers are sealed under the fax's own
-- key and die with it; what stays is masked. A fax belongs to no order: its key lies in a scope that
-- a process fills with the faxes of a minute.

create table fax (
    id              uuid primary key,
    region          text not null,
    direction       text not null check (direction in ('inbound', 'outbound')),
    channel         text not null check (channel in ('gateway', 'mail')),
    state           text not null check (state in ('received', 'queued', 'delivering', 'delivered',
                                                   'failed', 'expired')),
    custody         text not null check (custody in ('stored', 'shredded', 'sealed')),
    media_type      text not null,
    size_bytes      bigint not null,
    pages           integer not null,
    stream_header   bytea not null,
    metadata        bytea,
    caller_masked   text,
    callee_masked   text not null,
    facts           jsonb not null,
    -- Who brought it, under which Idempotency-Key, asking for what.
    principal       text not null,
    idempotency_key text,
    fingerprint     bytea not null,
    attempts        integer not null default 0,
    -- When it is tried next; while it is being tried, when that attempt counts as lost.
    next_attempt_at timestamptz not null,
    result          text,
    received_at     timestamptz not null,
    ended_at        timestamptz,
    last_generation bigint,
    purged_at       timestamptz,
    sealed_at       timestamptz,
    check ((custody = 'stored') = (state in ('received', 'queued', 'delivering'))),
    check ((custody = 'stored') = (ended_at is null)),
    check (custody = 'stored' or (metadata is null and last_generation is not null))
);

create unique index fax_key on fax (principal, idempotency_key) where idempotency_key is not null;
create index fax_page on fax (region, received_at desc, id desc);
create index fax_stored on fax (region, received_at) where custody = 'stored';
create index fax_waiting on fax (region, channel, direction, next_attempt_at)
    where custody = 'stored';
create index fax_unpurged on fax (region, ended_at)
    where custody <> 'stored' and purged_at is null;
create index fax_unsealed on fax (region, last_generation) where custody = 'shredded';

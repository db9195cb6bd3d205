-- What a statement is given many of, in one parameter: the client encodes a row at a time, where it
-- looked at every value of an array for each column.

create type record_given as (
    id         uuid,
    region     text,
    at         timestamptz,
    phase      text,
    principal  text,
    role       text,
    action     text,
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

create type fax_given as (
    id              uuid,
    region          text,
    direction       text,
    channel         text,
    state           text,
    custody         text,
    media_type      text,
    size_bytes      bigint,
    pages           integer,
    stream_header   bytea,
    metadata        bytea,
    caller_masked   text,
    callee_masked   text,
    facts           jsonb,
    next_attempt_at timestamptz,
    received_at     timestamptz,
    principal       text,
    idempotency_key text,
    fingerprint     bytea,
    scope           uuid,
    scope_epoch     bigint,
    wrap            bytea,
    until           timestamptz
);

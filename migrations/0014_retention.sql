-- When documents go, and what stands in the way: the policy in force, customers' instructions, holds
-- and restrictions.

-- Policies that were in force, the newest last. Never changed: a document's certificate names one.
create table retention_policy (
    version     bigint primary key,
    text        text not null,
    applied_at  timestamptz not null,
    applied_by  text not null,
    approved_by text
);

-- `due_at` is what the rule said when it last looked; `reviewed` is the policy it looked by, 0 when
-- something else changed since. Whoever shreds asks the rule again, under locks.
alter table document
    add column due_at           timestamptz,
    add column reviewed         bigint not null default 0,
    add column announced_due_at timestamptz,
    add column shred_ground     text,
    add column retention_row    text,
    add column restricted_at    timestamptz;

create index document_due on document (region, due_at) where custody = 'stored' and due_at is not null;
create index document_unreviewed on document (region, reviewed) where custody = 'stored';
create index document_unannounced on document (region, due_at)
    where custody = 'stored' and due_at is not null and announced_due_at is distinct from due_at;

create index porting_order_customer on porting_order (region, customer);

-- What a customer asked for: one living instruction for a kind, and one for all others (kind null).
create table instruction (
    id           uuid primary key,
    region       text not null,
    customer     text not null,
    kind         text,
    keep         interval not null,
    reference    text,
    given_by     text not null,
    given_at     timestamptz not null,
    nearest_by   text,
    nearest_at   timestamptz,
    withdrawn_by text,
    withdrawn_at timestamptz
);

create unique index instruction_living on instruction (region, customer, coalesce(kind, ''))
    where withdrawn_at is null;
create index instruction_page on instruction (region, given_at desc, id desc);

-- A hold is a case. What it covers, present and future, stands in a table of its own.
create table hold (
    id             uuid primary key,
    region         text not null,
    reason         text not null,
    authority      text not null,
    reference      text,
    placed_by      text not null,
    placed_at      timestamptz not null,
    released_by    text,
    release_reason text,
    approved_by    text,
    released_at    timestamptz,
    check ((released_at is null) = (released_by is null))
);

create index hold_page on hold (region, placed_at desc, id desc);

create table hold_target (
    hold     uuid not null references hold (id),
    region   text not null,
    document uuid,
    order_id uuid,
    customer text,
    released boolean not null default false,
    check (num_nonnulls(document, order_id, customer) = 1)
);

create index hold_target_hold on hold_target (hold);
create index hold_target_document on hold_target (document) where document is not null and not released;
create index hold_target_order on hold_target (order_id) where order_id is not null and not released;
create index hold_target_customer on hold_target (region, customer)
    where customer is not null and not released;

create table restriction (
    id        uuid primary key,
    document  uuid not null references document (id),
    reason    text not null,
    placed_by text not null,
    placed_at timestamptz not null,
    lifted_by text,
    lifted_at timestamptz
);

create unique index restriction_living on restriction (document) where lifted_at is null;

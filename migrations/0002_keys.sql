-- The key tree: a root wrapped under a generation of the custodian, pages of up to 60 child keys,
-- a scope for what is opened together, and data keys, wrapped one by one under their scope.

create table key_generation (
    region       text not null,
    generation   bigint not null,
    state        text not null check (state in ('intended', 'active', 'retired', 'destroyed')),
    -- Random bytes wrapped under the generation: once it is destroyed they must not open.
    canary       bytea,
    named_at     timestamptz not null default now(),
    active_at    timestamptz,
    destroyed_at timestamptz,
    primary key (region, generation),
    check ((state = 'destroyed') = (destroyed_at is not null))
);

create unique index key_generation_active on key_generation (region) where state = 'active';

create table key_tree (
    region     text primary key,
    generation bigint not null,
    root       bigint not null,
    root_wrap  bytea not null,
    foreign key (region, generation) references key_generation (region, generation)
);

-- `used` has a bit for each slot of the page that holds a child's key.
create table key_node (
    region text not null,
    id     bigint generated always as identity,
    level  integer not null,
    epoch  bigint not null,
    parent bigint,
    slot   integer,
    used   bigint not null,
    page   bytea not null,
    primary key (region, id)
);

create index key_node_free on key_node (region, level, id) where used <> 1152921504606846975;

create table key_scope (
    id     uuid primary key,
    region text not null,
    epoch  bigint not null,
    node   bigint not null,
    slot   integer not null,
    dirty  boolean not null default false,
    unique (id, epoch),
    unique (region, node, slot) deferrable initially immediate
);

create index key_scope_dirty on key_scope (region) where dirty;

-- That no committed wrap names a retired scope key is this foreign key's promise.
create table data_key (
    id          uuid primary key,
    region      text not null,
    scope       uuid not null,
    scope_epoch bigint not null,
    wrap        bytea not null,
    foreign key (scope, scope_epoch) references key_scope (id, epoch)
        deferrable initially immediate
);

create index data_key_scope on data_key (scope);

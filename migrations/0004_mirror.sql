-- What the tree's copy in the region's bucket needs: which rows changed since the last copy, which
-- data keys left the tree, and how far the copy is.

-- The transaction that made or last changed a row; what a copy's snapshot did not see yet is at or
-- above that snapshot's xmin.
alter table key_generation add column changed xid8 not null default pg_current_xact_id();
alter table key_node       add column changed xid8 not null default pg_current_xact_id();
alter table key_scope      add column changed xid8 not null default pg_current_xact_id();
alter table data_key       add column changed xid8 not null default pg_current_xact_id();

create index key_node_changed on key_node (region, changed);
create index key_scope_changed on key_scope (region, changed);
create index data_key_changed on data_key (region, changed);

-- Counts the changes of the tree's shape, so that of two states of one generation the later is known.
alter table key_tree add column revision bigint not null default 0;

-- A node below which a seal's first steps have re-keyed scopes; its own key is replaced at the switch.
alter table key_node add column dirty boolean not null default false;
create index key_node_dirty on key_node (region) where dirty;
create index key_generation_living on key_generation (region, generation) where state <> 'destroyed';

-- Data keys that left the tree under a generation that may still live: whoever merges two states of
-- the tree must not bring them back. A row goes when its generation is destroyed.
create table key_gone (
    region     text not null,
    id         uuid not null,
    generation bigint not null,
    changed    xid8 not null default pg_current_xact_id(),
    primary key (region, id)
);

-- A number is intended before its segment is written, and never used again.
create table key_mirror (
    region         text primary key,
    intended       bigint not null,
    written        bigint not null,
    name           text,
    digest         bytea,
    base_bytes     bigint not null,
    segments       bigint not null,
    segments_bytes bigint not null,
    seen           xid8,
    written_at     timestamptz
);

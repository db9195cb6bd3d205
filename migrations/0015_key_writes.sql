-- A seal writes as little as it can: what it replaces is written over in its block, without an entry
-- in any index, wherever no indexed column changes.

-- Which nodes and scopes a transaction changed; a row goes when the region's mirror holds it.
create table key_changed (
    region  text not null,
    changed xid8 not null default pg_current_xact_id(),
    nodes   bigint[] not null default '{}',
    scopes  uuid[] not null default '{}'
);

create index key_changed_since on key_changed (region, changed);

insert into key_changed (region, changed, nodes)
select region, changed, array_agg(id) from key_node group by region, changed;
insert into key_changed (region, changed, scopes)
select region, changed, array_agg(id) from key_scope group by region, changed;
alter table key_node drop column changed;
alter table key_scope drop column changed;

-- A page is a hair too long for PostgreSQL to leave it in its row by itself, and nothing can compress
-- it. A block holds two nodes, and has room for what replaces them.
alter table key_node alter column page set storage plain;
alter table key_node set (fillfactor = 50);

-- `changed` of a data key is the transaction that made it; what re-wraps it changes its scope, too.
alter table data_key set (fillfactor = 85);

-- Which scopes lost a data key since they were re-keyed. A mark in the scope's own row would cost an
-- entry in each of its indexes.
create table key_dirty (
    region text not null,
    scope  uuid not null,
    primary key (region, scope)
);

insert into key_dirty (region, scope) select region, id from key_scope where dirty;
alter table key_scope drop column dirty;

-- What left the tree is forgotten by generation.
alter table key_gone drop constraint key_gone_pkey;
alter table key_gone add primary key (region, generation, id);

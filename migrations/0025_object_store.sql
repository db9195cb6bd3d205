-- Which store holds a region's objects: the id that its identity object carries, too. An empty mount
-- point, or another bucket, is told from it.

create table object_store (
    region text primary key,
    id     text not null check (id ~ '^[0-9a-f]{32}$')
);

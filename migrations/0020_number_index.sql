-- Orders by the telephone numbers they move: a MAC of each number under a data key of the tree.

create table number_index_key (
    id         uuid primary key,
    region     text not null,
    created_at timestamptz not null,
    -- Since when another one is the present one; its rows are on the way to that.
    retired_at timestamptz
);

create unique index number_index_key_present on number_index_key (region)
    where retired_at is null;

-- A row without a key says that the order's numbers are yet to be indexed.
create table number_index (
    region  text not null,
    key     uuid references number_index_key (id),
    mac     bytea,
    "order" uuid not null references porting_order (id) on delete cascade,
    check ((key is null) = (mac is null))
);

create index number_index_mac on number_index (region, key, mac);
create index number_index_order on number_index ("order");

insert into number_index (region, "order") select region, id from porting_order;

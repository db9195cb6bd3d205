-- What the worker's look found damaged at rest, and how far its look is.

create table damage (
    region   text not null,
    place    text not null,
    "table"  text,
    id       text,
    "column" text,
    object   text,
    segment  bigint,
    detail   text not null,
    found_at timestamptz not null,
    seen_at  timestamptz not null,
    primary key (region, place)
);

create table damage_look (
    region   text primary key,
    part     text not null,
    -- What was looked at last of the part; null: nothing yet.
    after    text,
    began_at timestamptz not null,
    ended_at timestamptz
);

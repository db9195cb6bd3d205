-- When the worker last looked at what is due, so that a clock that has jumped since is noticed, and
-- how much went by its time lately.

create table expiry_clock (
    region       text primary key,
    seen_at      timestamptz not null,
    -- Until when two people have agreed that what is due goes, however much that is.
    agreed_until timestamptz
);

insert into expiry_clock (region, seen_at)
select region, max(at) from log_checkpoint group by region;

create table expiry (
    region    text not null,
    at        timestamptz not null,
    documents bigint not null
);

create index expiry_at on expiry (region, at);

-- What the porting system is told by webhook: written with what happened, delivered afterwards.

create table signal (
    id      uuid primary key,
    region  text not null,
    type    text not null,
    at      timestamptz not null,
    payload text not null
);

create index signal_page on signal (region, at desc, id desc);

create table signal_delivery (
    signal       uuid not null references signal (id),
    endpoint     text not null,
    region       text not null,
    state        text not null check (state in ('waiting', 'delivered', 'dead')),
    attempts     integer not null default 0,
    next_at      timestamptz not null,
    last_failure text,
    delivered_at timestamptz,
    primary key (signal, endpoint)
);

create index signal_delivery_waiting on signal_delivery (region, next_at) where state = 'waiting';

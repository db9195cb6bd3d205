-- What was said of an order, by the desk and by carriers: its status is what these add up to.

create table order_event (
    source      text not null,
    event       text not null,
    order_id    uuid not null references porting_order (id),
    status      text not null,
    occurred_at timestamptz not null,
    received_at timestamptz not null,
    primary key (source, event)
);

create index order_event_order on order_event (order_id);

insert into order_event (source, event, order_id, status, occurred_at, received_at)
select 'desk', id::text, id, status, coalesce(ended_at, created_at), changed_at from porting_order;

-- What a carrier calls an order.
create table carrier_order (
    carrier   text not null,
    reference text not null,
    order_id  uuid not null references porting_order (id),
    primary key (carrier, reference)
);

-- That all documents of an order are gone; stays when everything else is gone, as `certificate` does.

create table order_certificate (
    order_id  uuid primary key references porting_order (id),
    region    text not null,
    note      text not null,
    issued_at timestamptz not null
);

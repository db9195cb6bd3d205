-- An order's sealed details go too: when it has ended, none of its documents is left, and their own
-- time has come.

alter table porting_order alter column details drop not null;
alter table porting_order add column details_gone_at timestamptz;

-- Orders that something changed of on which the end of their details depends, and from when on that
-- is to be looked at. Rows are only added, so nobody waits for them, and taken away by who looked.
create table order_look (
    region   text not null,
    order_id uuid not null,
    look_at  timestamptz not null default '-infinity'
);

create index order_look_at on order_look (region, look_at);

insert into order_look (region, order_id)
select region, id from porting_order where ended_at is not null;

-- Whatever takes an order's document away, the order is looked at.
create function look_at_order() returns trigger language plpgsql as $$
begin
    insert into order_look (region, order_id)
    select region, id from porting_order where id = old.order_id and ended_at is not null;
    return null;
end
$$;

create trigger document_shredded after update of custody on document for each row
    when (old.custody in ('receiving', 'stored') and new.custody in ('shredded', 'sealed'))
    execute function look_at_order();
create trigger document_given_up after delete on document for each row
    execute function look_at_order();

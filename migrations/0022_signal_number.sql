-- Deliveries are listed by a number that the worker gives them once they are committed. Times and
-- sequences are taken before the commit: what commits late would come in behind a reader's back.

alter table signal_delivery add column number bigint;

create sequence signal_delivery_number_seq;

update signal_delivery d set number = ordered.number from (
    select p.signal, p.endpoint, row_number() over (order by s.at, s.id, p.endpoint) number
    from signal_delivery p join signal s on s.id = p.signal) ordered
where d.signal = ordered.signal and d.endpoint = ordered.endpoint;

select setval('signal_delivery_number_seq', 1 + (select count(*) from signal_delivery), false);

create unique index signal_delivery_number on signal_delivery (number) where number is not null;
create index signal_delivery_unnumbered on signal_delivery (region, next_at) where number is null;
drop index signal_page;

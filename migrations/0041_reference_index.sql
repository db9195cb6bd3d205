-- Orders are found by the customer's own reference, too: a MAC of it stands beside those of the numbers.
-- A row of a reference without a key says that the whole order is yet to be indexed.

alter table number_index add column reference boolean not null default false;

insert into number_index (region, "order", reference)
select region, id, true from porting_order where details is not null;

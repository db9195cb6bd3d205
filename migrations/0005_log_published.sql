-- How much of the log the region's bucket holds; no reader needs to ask the bucket while idle.

create table log_published (
    region text primary key,
    size   bigint not null
);

-- How much each principal has read lately, in buckets of five minutes: all processes add to it, so
-- that a limit is one limit. `subject` is an order, or nothing for faxes.

create table usage (
    principal text not null,
    bucket    bigint not null,
    subject   uuid not null,
    reads     bigint not null,
    primary key (principal, bucket, subject)
);

create index usage_bucket on usage (bucket);

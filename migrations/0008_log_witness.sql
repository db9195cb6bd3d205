-- What witnesses said of the log's checkpoints: a line each under the signed note, never changed.

create table log_cosignature (
    region  text not null,
    size    bigint not null,
    witness text not null,
    line    text not null,
    at      timestamptz not null,
    primary key (region, size, witness)
);

create trigger log_cosignature_insert_only before update or delete or truncate on log_cosignature
    for each statement execute function refuse_change();

-- What was uploaded or typed by mistake: who agreed to its shred against the floor, and what took
-- its place.
alter table document
    add column shred_approved_by text,
    add column replaced_by uuid references document (id);

-- The log by an action alone, newest first: without it such a search reads the log from its end.

create index log_leaf_action on log_leaf (region, action, at desc, record desc);

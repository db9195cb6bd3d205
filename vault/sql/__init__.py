"""Every SQL statement, a function each; the first argument is a connection."""

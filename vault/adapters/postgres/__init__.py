"""PostgreSQL as a program: its tools, and one that is embedded."""

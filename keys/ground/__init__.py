"""What keys and vault both stand on: connections, caches and files that hold secrets."""

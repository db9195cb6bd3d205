"""What the vault does, one story a file, read from top to bottom."""

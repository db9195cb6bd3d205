"""What is outside the vault, one library a file."""

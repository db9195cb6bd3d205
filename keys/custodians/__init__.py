"""Holders of root keys, one a file."""

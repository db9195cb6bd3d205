"""Signed notes: what the log and the certificates are signed with, and by whom."""

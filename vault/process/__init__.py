"""What one process keeps in its memory while it serves."""

"""What runs in a child process with limits, because it reads what strangers send."""

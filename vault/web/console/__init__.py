"""What people see in a browser: sign-in, who one is, and the log-out."""

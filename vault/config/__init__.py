"""What an operator sets: settings, webhooks, and the rules that stand in files."""

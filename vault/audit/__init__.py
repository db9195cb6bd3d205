"""The auditor's files: each is handed over alone and imports no line of the vault."""

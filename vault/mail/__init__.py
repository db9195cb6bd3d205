"""The SMTP entrance: email to fax."""

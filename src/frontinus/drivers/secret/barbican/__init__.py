"""Secrets in OpenStack's key manager: names.py reads references, barbican.py asks, driver.py decides.

What is in a secret is never kept, and never in a message or a log; what a certificate is, drivers/secret/bundle.py says."""

"""Secrets in OpenStack's key manager: names.py reads references, barbican.py asks, driver.py decides."""

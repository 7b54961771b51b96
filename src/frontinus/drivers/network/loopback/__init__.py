"""Addresses of 127.0.0.0/8 for VIPs on this machine: the embedded default. driver.py is all of it."""

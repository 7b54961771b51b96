"""Amphorae that are network namespaces of this machine, each with interfaces of its own. Begin with driver.py."""

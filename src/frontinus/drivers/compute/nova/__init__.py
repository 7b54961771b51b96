"""Amphorae as servers of OpenStack. Next: driver.py."""

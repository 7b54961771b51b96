"""Amphorae as servers of OpenStack.

Makes no ports, but is handed them by their ids, and does not read what an amphora is told in its boot files; keeps nothing of
what Nova knows. Open first: driver.py, then servers.py and nova.py."""

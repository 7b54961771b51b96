"""Frontinus: load balancing as a service, wire-compatible with the OpenStack Octavia v2 API.

Rooms, from the bottom up: model, store, drivers, then api, controller and health side by side; main joins them.
The walk through the house is docs/architecture.md; the first file to open is controller/reconcile.py."""

__version__ = "0.1.0"

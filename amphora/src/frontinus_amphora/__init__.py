"""The Frontinus agent: what runs on an amphora.

It checks, swaps, starts, reloads and reports HAProxy; it knows nothing of templates, tenants or a database, and keeps
nothing that one push cannot give back. It uses the standard library only and imports nothing of the control plane.
Next: main.py joins the parts; load_balancer.py is the heart; docs/reference/agent-extension.md is the protocol.
"""

__version__ = "0.1.0"
API_VERSION = "1.0"
EXTENSION_VERSION = 1

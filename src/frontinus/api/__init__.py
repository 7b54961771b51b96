"""The face of Frontinus: the Octavia v2 API over HTTP. Parse, authorise, store intent, answer.

Imports model and store; never drivers, controller or health: what it needs of the network is the Protocol in ports.py.
Wire spellings (loadbalancer, healthmonitor) live here and nowhere else. The shape of every resource is data: fields.py.
Read fields.py, then requests.py, then app.py."""

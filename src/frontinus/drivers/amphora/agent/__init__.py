"""What every driver of the one agent shares: who may talk to it, its files, its REST client, its heartbeats.

Knows nothing of any balancer's configuration language. Order of reading: authority.py (who is who), boot.py (what a
place needs), client.py (REST over mutual TLS), heartbeat.py (datagrams)."""

"""Taking over what another program has built: an Octavia's load balancers, with the amphorae that carry them.

Reads a foreign database, judges what is in it, and has the store keep what can be carried. Nothing here speaks to an amphora,
and nothing of the other side is changed. Open octavia.py first."""

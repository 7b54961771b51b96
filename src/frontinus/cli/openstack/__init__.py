"""`frontinus openstack`: how a cloud stands with us (check.py, and with --try trying.py), and our entry in its catalogue
(register.py).

What is asked is in looking.py, and what the answers mean in the pure judging.py and catalogue.py, both by the values of
seen.py. Nothing that serves needs this room, and it opens no database. Open first: check.py."""

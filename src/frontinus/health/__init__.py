"""The ear: datagrams in, liveness and statistics out.

Imports model, store and the amphora driver interface; never a driver itself, never api or controller. It decides who is
suspected; what becomes of a suspect is the controller's. Next: listener.py, accounts.py, liveness.py."""

"""Places that are plain processes on loopback addresses of this machine: the embedded default.

Needs no privileges and nothing but Python and haproxy. driver.py is the driver; processes.py proves whose a process
is; place.py is the directory."""

"""Places that are plain processes on loopback addresses of this machine: the embedded default.

Needs no privileges and nothing but Python and haproxy. driver.py adds the addresses to drivers/compute/host/."""

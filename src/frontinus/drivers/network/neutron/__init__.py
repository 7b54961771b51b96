"""Network driver `neutron`: VIPs and ports of an OpenStack cloud. Open first: driver.py."""

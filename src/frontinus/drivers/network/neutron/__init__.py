"""Network driver `neutron`: VIPs and ports of an OpenStack cloud.

Knows no compute driver: ports are hung on servers by whoever is handed their ids. Keeps nothing of what Neutron knows. Open first:
driver.py, then vips.py and amphora_ports.py."""

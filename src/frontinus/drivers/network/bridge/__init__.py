"""Networks that are bridges of this machine, for amphorae in network namespaces and virtual machines. Begin with driver.py."""

"""What the compute drivers share whose amphorae are agents started on this machine: their directories, their processes,
how they are started, seen and ended. Begin with compute.py."""

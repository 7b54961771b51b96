"""Third-party provider drivers (octavia-lib), each in a process of its own: octavia.py."""

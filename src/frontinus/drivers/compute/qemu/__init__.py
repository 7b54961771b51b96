"""Places that are virtual machines of this host, started from the image that `make image` builds.

driver.py is the driver; place.py is the directory of a machine and the proof which process it is; machine.py its command
line and config drive; qmp.py asks and tells it; taps.py hangs it on bridges; iso9660.py writes the drive."""

"""Fakes and conformance kits for drivers, shipped so that a vendor can examine a driver and test against ours.

Imports model and the driver interfaces; nothing outside tests may import it. A fake is a small world in memory with
faults on order (faults.py); it sits the same exam as real drivers (the *_conformance modules). Start with exam.py."""

"""The amphora drivers. The interface is interface.py; each implementation is a package or module beside it."""

"""The engines: what differs between SQLite, PostgreSQL and MariaDB, and nothing else. `interface.py` says what an engine
offers; `ddl.py` makes the tables mean the same on all; engine.py, one floor up, is what the rest of store/ works with."""

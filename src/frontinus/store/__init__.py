"""The only room that speaks SQL: schema, migrations, queries. Imports model and nothing else of ours.

Functions take a `Transaction`, which is opaque to everybody outside, and return model values; they never read a clock
and never call a driver. Start with engine.py (how work gets a transaction), then schema.py, trees.py and leases.py."""

"""What a load balancer is: frozen values, enums, ids, errors and the tables of what goes with what.

Imports nothing of ours, and nothing that does I/O, has a clock or speaks SQL. Everything here is a value or a pure
function. Start with tree.py, then edits.py (how a change alters a tree) and validation.py (the one validator)."""

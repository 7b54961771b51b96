"""What is outside: one interface per kind and one package per implementation.

Imports model only. A driver is handed frozen values and never a database session; no driver package imports another
(amphora drivers may share drivers/amphora/agent, which speaks to the one agent that there is)."""

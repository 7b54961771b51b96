"""Amphorae by the thousand: real mutual TLS, the agent's protocol and its heartbeats, and no traffic.

    fleet = SimulatedFleet(agent_port=9443)      # fleet.py: processes that are hosts of amphorae
    fleet.start()
    ... an installation with `fleet.settings()` in its file and `fleet.environment()` in its environment ...
    fleet.order(Order(refuse="no such word"))    # agent.py: what shall go wrong
    fleet.report()                               # what came to each: pushes, and which of them were repeats
    fleet.stop()

The controllers of that installation are real and so is their amphora driver; what they build is one object in a process
of many (host.py), reached by a compute driver (compute.py) that is found by its entry point as any out-of-tree driver is."""

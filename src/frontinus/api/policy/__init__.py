"""Who may do what. rules.py is the table, enforcer.py evaluates it with oslo.policy, guard.py finds out for each request
which rule and whose project it is about. Knows no HTTP and no tokens; who calls is found out by identity/."""

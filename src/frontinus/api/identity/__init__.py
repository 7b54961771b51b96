"""Who calls: interface.py says what is found out, none.py, tokens.py and keystone.py each one way of finding out.

Never decides what somebody may do; that is policy/."""

"""What each operation does, one file per resource. Handlers are thin: parse, call out where needed, one transaction, answer."""

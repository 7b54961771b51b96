"""Secrets kept by this installation itself, encrypted; ../bundle.py reads what people bring."""

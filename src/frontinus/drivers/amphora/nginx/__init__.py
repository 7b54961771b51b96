"""The driver of amphorae that run nginx alone: fewer capabilities than haproxy's, and what they leave out is refused.

Open render.py first."""

"""The HAProxy driver: renders HAProxy configurations and carries them to amphorae by the smallest change.

Order of reading: text.py (lines, and the only place that quotes), server.py (one member's line), render.py (tree to
text), diff.py (text to text, as runtime commands), driver.py (joins them with drivers/amphora/agent)."""

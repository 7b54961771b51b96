"""One line per event on standard error: a constant event text, then key=value facts.

Never give it a secret, a key or an HMAC. The `logging` package is left out for its memory.
"""

import json
import sys
import time


def log(event: str, **facts: object) -> None:
    """Write one line. A log that cannot be written is dropped: nobody stops balancing for it."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    words = "".join(f" {key}={_word(value)}" for key, value in facts.items())
    try:
        sys.stderr.write(f"{stamp} {event}{words}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


def _word(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text if text and text.isprintable() and not set(text) & set(' "=') else json.dumps(text)

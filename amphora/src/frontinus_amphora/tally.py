"""What nginx counted, read from the log that it appends to: one line per connection, session of datagrams, or request.

A line is `<listener> <bytes sent> <bytes received> <connections> <errors>`: numbers to add up, whose meaning the
driver's text decides. nginx writes it in blocks and never waits for a reader. Next: statistics.py.
"""

import os
from typing import NamedTuple

from frontinus_amphora.encoding import Counters

MOST_AT_ONCE = 4 << 20  # bytes read in one go
LONGEST = 8 << 20  # bytes; a log that is read to its end and longer is emptied


class Tally(NamedTuple):
    """What was added since the last reading, and where the next one begins."""

    added: dict[str, Counters]
    position: int


def read_tally(path: str, position: int) -> Tally:
    """Read the lines that came after `position`; a log that is shorter was emptied meanwhile."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            position = position if position <= size else 0
            file.seek(position)
            content = file.read(min(MOST_AT_ONCE, size - position))
    except FileNotFoundError:
        return Tally({}, 0)
    whole = content[: content.rfind(b"\n") + 1]
    return Tally(add_up(whole), position + len(whole))


def add_up(lines: bytes) -> dict[str, Counters]:
    """Pure. What makes no sense is passed over."""
    sums: dict[bytes, list[int]] = {}
    for line in lines.splitlines():
        words = line.split()
        try:
            name, sent, received, opened, failed = words
            row = sums.setdefault(name, [0, 0, 0, 0])
            row[0] += int(sent)
            row[1] += int(received)
            row[2] += int(opened)
            row[3] += int(failed)
        except ValueError:
            continue
    return {name.decode("ascii", "replace"): Counters(*row) for name, row in sums.items()}


def empty_log(path: str, position: int) -> bool:
    """Empty a log that grew long, if nothing came since `position` was read; True when done. nginx appends, so it goes
    on at the start."""
    if position < LONGEST or os.stat(path).st_size != position:
        return False
    os.truncate(path, 0)
    return True

"""How to get from one configuration to another. A value only; drivers decide it."""

from __future__ import annotations

import msgspec


class Change(msgspec.Struct, frozen=True):
    """How to get from what runs to something else. `commands` in the order in which to send them. With `reload` they come
    first: servers that stay are already what they shall be when their states are saved for the new worker."""

    commands: tuple[str, ...]
    reload: bool

    def __repr__(self) -> str:  # a payload may be a key, and must not get into logs and tracebacks
        told = tuple(command.partition("\n")[0] for command in self.commands)
        return f"Change(commands={told!r}, reload={self.reload})"

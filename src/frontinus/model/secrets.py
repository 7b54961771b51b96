"""A text that must not be seen: it does not show itself in messages, logs, tracebacks and printed settings."""

from __future__ import annotations


class Secret:
    """Holds a text. `reveal` is the only way to it, so that each use can be found by its name."""

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "(secret)" if self._text else "(none)"

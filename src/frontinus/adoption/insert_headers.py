"""The one column of Octavia's database that is a Python pickle: the headers that a listener inserts.

Whoever may write to a foreign database must not thereby run code here: nothing but plain values is unpickled. Pure."""

from __future__ import annotations

import io
import pickle
from typing import Any


class _PlainValues(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is no plain value")


def read_insert_headers(content: bytes | None) -> dict[str, str]:
    """Raises ValueError for what is no mapping of texts."""
    if content is None:
        return {}
    try:
        found = _PlainValues(io.BytesIO(content)).load()
    except Exception as error:  # a pickle may fail in any way; whichever it is, it is not what it should be
        raise ValueError(f"insert_headers cannot be read: {error}") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ValueError("insert_headers is no mapping")  # noqa: TRY004 - it is the content
    return {str(key): str(value) for key, value in found.items()}

"""A pickle of a foreign database runs nothing here."""

from __future__ import annotations

import os
import pickle
from typing import Any

import pytest

from frontinus.adoption.insert_headers import read_insert_headers


class _Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/harm",)


@pytest.mark.parametrize(
    "wanted, content",
    [
        pytest.param({}, None, id="nothing"),
        pytest.param({}, pickle.dumps(None), id="a pickled nothing"),
        pytest.param({"X-Forwarded-For": "true"}, pickle.dumps({"X-Forwarded-For": "true"}), id="a header"),
        pytest.param(
            {"X-Forwarded-For": "true"}, pickle.dumps({"X-Forwarded-For": True}, 0).replace(b"I01", b"Vtrue"), id="old"
        ),
    ],
)
def test_headers_are_read(wanted: dict[str, str], content: bytes | None) -> None:
    assert read_insert_headers(content) == wanted


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(pickle.dumps({"x": _Harmful()}), id="runs something"),
        pytest.param(pickle.dumps(["x"]), id="no mapping"),
        pytest.param(b"\x80", id="cut off"),
        pytest.param(b"", id="empty"),
    ],
)
def test_anything_else_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="insert_headers"):
        read_insert_headers(content)

"""A connection of openstacksdk to a service that is acted out: whoever tests says in `request` what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import requests


def answer(content: Any, status: int = 200) -> requests.Response:
    """With JSON, with bytes as they are, or with nothing."""
    made = requests.Response()
    made.status_code = status
    made.headers["Content-Type"] = "application/json"
    made.json = lambda **_: content  # type: ignore[method-assign]
    made._content = content if isinstance(content, bytes) else b"" if content is None else b"{}"
    made.headers["Content-Length"] = str(len(made._content))
    return made


def refusal(content: Any, status: int, path: str, method: str) -> requests.Response:
    """One that openstacksdk makes an error of, which names the request."""
    made = answer(content, status)
    made.request = requests.Request(method, f"http://service.example{path}").prepare()
    return made


class LittleCloud:
    """Every service is this one. `asked` is for what a test wants to know of requests."""

    auth = None

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.compute = self.image = self.identity = self.network = self.key_manager = self

    @property
    def session(self) -> Any:
        return self

    def get_auth_headers(self) -> Mapping[str, str]:
        return {}

    def get_project_id(self, _auth: object) -> str:
        return "ours"

    def get_user_id(self, _auth: object) -> str:
        return "our-account"

    def request(self, path: str, method: str, **words: Any) -> requests.Response:
        raise AssertionError(f"{method} {path} was not expected")

    def close(self) -> None:
        pass

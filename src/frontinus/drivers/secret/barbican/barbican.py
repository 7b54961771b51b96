"""Barbican's API as far as we use it: one method for each request. Every method blocks, and raises Retry when Barbican cannot
be asked; that something is not there, or may not be read, is told by HTTP's status, since what it means depends on who asks.
Whom a secret may be read for is not decided here, and nothing of one is kept.

Next: driver.py."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from keystoneauth1.token_endpoint import Token
from openstack import exceptions as sdk

from frontinus.drivers.openstack.cloud import Cloud, require_whole
from frontinus.drivers.secret.barbican.names import Collection, Place

_TOLD = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.NOT_ACCEPTABLE})
WITH_CONSUMERS = {"OpenStack-API-Version": "key-manager 1.1"}
"""The microversion in which secrets have consumers."""
_PAGE = 100


class NotReadable(Exception):
    """Barbican would not show something to who asked."""

    def __init__(self, status: int, place: Place) -> None:
        super().__init__(f"{place.path}: {status}")
        self.status, self.place = status, place


class Barbican:
    """`token` in a method: it is asked with that one instead of our account's."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def show(self, place: Place, token: str | None = None) -> Mapping[str, Any]:
        """Without its content; with its consumers. Raises NotReadable."""
        return self._request("GET", place, token=token).json()  # type: ignore[no-any-return]

    def payload(self, secret: Place, token: str | None = None) -> bytes:
        """Raises NotReadable."""
        content: bytes = self._request("GET", secret, "/payload", token=token, headers={"Accept": "*/*"}).content
        return content

    def readable(self) -> list[Mapping[str, Any]]:
        """Every secret whose ACL names our account, with its consumers."""
        found: list[Mapping[str, Any]] = []

        def page(key_manager: Any) -> Any:
            asked = {"acl_only": "true", "limit": _PAGE, "offset": len(found), "sort": "created:asc"}
            response = key_manager.get("/secrets", params=asked, headers=WITH_CONSUMERS)
            sdk.raise_from_response(response)
            require_whole(response)
            return response.json()

        while True:
            answer = self._cloud.call("key_manager", page)
            found += answer["secrets"]
            if not answer["secrets"] or "next" not in answer:
                return found

    def register(self, place: Place, consumer: Mapping[str, str]) -> None:
        """Once is enough, and twice does no harm. Raises NotReadable."""
        self._request("POST", place, "/consumers", json=dict(consumer))

    def unregister(self, place: Place, consumer: Mapping[str, str]) -> None:
        """One that is not there is done already. Raises NotReadable when the owner took our access away."""
        try:
            self._request("DELETE", place, "/consumers", json=dict(consumer))
        except NotReadable as answer:
            if answer.status != HTTPStatus.NOT_FOUND:
                raise

    def let_read(self, place: Place, user_id: str, token: str) -> None:
        """The ACL names the user, beside whoever it named. Raises NotReadable when who has the token may not write it."""
        read = self._request("GET", place, "/acl", token=token).json().get("read", {})
        users = read.get("users", [])
        if user_id not in users:
            wanted = {"users": [*users, user_id], "project-access": read.get("project-access", True)}
            self._request("PUT", place, "/acl", token=token, json={"read": wanted})

    def _request(self, method: str, place: Place, more: str = "", *, token: str | None = None, **words: Any) -> Any:
        headers = {**(WITH_CONSUMERS if place.collection is Collection.SECRETS else {}), **words.pop("headers", {})}

        def question(key_manager: Any) -> Any:
            if token is not None:
                words["auth"] = Token(endpoint=key_manager.get_endpoint(), token=token)
            response = key_manager.request(f"{place.path}{more}", method, headers=headers, **words)
            if response.status_code not in _TOLD:
                sdk.raise_from_response(response)
                require_whole(response)
            return response

        answer = self._cloud.call("key_manager", question)
        if answer.status_code in _TOLD:
            raise NotReadable(answer.status_code, place)
        return answer

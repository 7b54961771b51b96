"""Nova's and Glance's API as far as we use it: one method for each request, facts in and out.

Every method blocks, and raises Retry when the service cannot be asked, Refused when it refuses. What the answers mean is
decided by who asks (servers.py, groups.py): nothing is decided, waited for or remembered here."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from frontinus.drivers.compute.nova.facts import (
    ActionFacts,
    FlavorFacts,
    GroupFacts,
    ImageFacts,
    InterfaceFacts,
    ServerFacts,
)
from frontinus.drivers.openstack.cloud import Cloud
from frontinus.drivers.openstack.trouble import SOON_S, Refused
from frontinus.model.errors import Retry
from frontinus.model.ids import PortId

_T = TypeVar("_T")
MICROVERSION = "2.69"
"""Of Rocky, 2018: with tags at the create (2.52), user data at a rebuild (2.57), one policy of a group (2.64), and servers of
a cell that does not answer (2.69)."""
_SERVERS_AT_ONCE = 200
"""With all that Nova says of each, it takes seconds for its own thousand; our time-out is for one answer."""
_GROUPS_AT_ONCE, _OVERLAP = 500, 50
"""Groups have no marker, only a count of those to leave out. So each page begins with some of the one before."""
_ATTEMPTS = 5


class Nova:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    # Servers

    def servers(self, **filters: object) -> list[ServerFacts]:
        """Of our project."""
        asked = {**filters, "limit": _SERVERS_AT_ONCE}
        return _convert(self._listed("/servers/detail", "servers", asked), list[ServerFacts])

    def server(self, server_id: str) -> ServerFacts | None:
        try:
            answer = self._request("GET", _server(server_id))
        except Refused as refused:
            if refused.status == HTTPStatus.NOT_FOUND:
                return None
            raise
        return _convert(answer["server"], ServerFacts)

    def create_server(self, body: Mapping[str, object], hints: Mapping[str, object]) -> str:
        """Its id."""
        more = {"os:scheduler_hints": dict(hints)} if hints else {}
        answer = self._request("POST", "/servers", json={"server": dict(body), **more})
        return str(answer["server"]["id"])

    def act(self, server_id: str, action: str, body: Mapping[str, object] | None = None) -> None:
        self._request("POST", f"{_server(server_id)}/action", json={action: None if body is None else dict(body)})

    def delete_server(self, server_id: str) -> None:
        self._delete(_server(server_id))

    def actions(self, server_id: str) -> list[ActionFacts]:
        """The newest first; Nova may keep more than it tells, and nobody asks for those."""
        answer = self._request("GET", f"{_server(server_id)}/os-instance-actions")
        return _convert(answer["instanceActions"], list[ActionFacts])

    # Interfaces

    def interfaces(self, server_id: str) -> list[InterfaceFacts]:
        answer = self._request("GET", f"{_server(server_id)}/os-interface")
        return _convert(answer["interfaceAttachments"], list[InterfaceFacts])

    def attach(self, server_id: str, port_id: PortId) -> None:
        body = {"interfaceAttachment": {"port_id": port_id}}
        self._request("POST", f"{_server(server_id)}/os-interface", json=body)

    def detach(self, server_id: str, port_id: PortId) -> None:
        self._delete(f"{_server(server_id)}/os-interface/{quote(port_id, safe='')}")

    # Server groups

    def groups(self) -> list[GroupFacts]:
        """Of our project: none is left out that is there all the while, whoever deletes others meanwhile."""
        for _ in range(_ATTEMPTS):
            found = self._groups_at_once()
            if found is not None:
                return found
        raise Retry("Nova's server groups change faster than they are read", after=SOON_S, code="nova-busy")

    def _groups_at_once(self) -> list[GroupFacts] | None:
        """None when so many were deleted meanwhile that nobody knows which were left out. They come in the order in which they
        were made, so that between one that is known and the next ones in its page there is none."""
        found: dict[str, GroupFacts] = {}
        end = overlap = 0
        while True:
            asked = {"limit": _GROUPS_AT_ONCE, "offset": end - overlap}
            page = _convert(self._request("GET", "/os-server-groups", params=asked)["server_groups"], list[GroupFacts])
            if overlap and not any(x.id in found for x in page):
                return None
            before = len(found)
            found |= {x.id: x for x in page}
            if len(found) == before:  # a short page may only be the most that Nova gives at once
                return list(found.values())
            end, overlap = end - overlap + len(page), min(_OVERLAP, len(page) // 2)

    def group(self, group_id: str) -> GroupFacts | None:
        try:
            answer = self._request("GET", _group(group_id))
        except Refused as refused:
            if refused.status == HTTPStatus.NOT_FOUND:
                return None
            raise
        return _convert(answer["server_group"], GroupFacts)

    def create_group(self, name: str, policy: str) -> GroupFacts:
        answer = self._request("POST", "/os-server-groups", json={"server_group": {"name": name, "policy": policy}})
        return _convert(answer["server_group"], GroupFacts)

    def delete_group(self, group_id: str) -> None:
        self._delete(_group(group_id))

    # What servers are made of

    def flavors(self) -> list[FlavorFacts]:
        return _convert(self._listed("/flavors", "flavors", {}), list[FlavorFacts])

    def zones(self) -> frozenset[str]:
        """Names of the availability zones that are there now."""
        answer = self._request("GET", "/os-availability-zone")
        return frozenset(str(x["zoneName"]) for x in answer["availabilityZoneInfo"] if x["zoneState"]["available"])

    def newest_image(self, tag: str, owner: str) -> ImageFacts | None:
        """The newest that can be used."""
        wanted = {"tag": tag, "owner": owner, "status": "active", "sort": "created_at:desc", "limit": 1}
        found = _convert(self._cloud.request("image", "GET", "/images", params=wanted)["images"], list[ImageFacts])
        return found[0] if found else None

    # How all of them ask

    def _listed(self, path: str, key: str, filters: Mapping[str, object]) -> list[Any]:
        return self._cloud.listed("compute", path, key, filters, microversion=MICROVERSION)

    def _delete(self, path: str) -> None:
        self._cloud.delete("compute", path, microversion=MICROVERSION)

    def _request(self, method: str, path: str, **words: Any) -> Any:
        return self._cloud.request("compute", method, path, microversion=MICROVERSION, **words)


def _server(server_id: str) -> str:
    return f"/servers/{quote(server_id, safe='')}"


def _group(group_id: str) -> str:
    return f"/os-server-groups/{quote(group_id, safe='')}"


def _convert(value: Any, kind: type[_T]) -> _T:
    return msgspec.convert(value, kind, strict=False)

"""Neutron's API as far as we use it: one method for each request, facts in and out, and refusals by Neutron's own word.

Every method blocks, and raises Retry when Neutron cannot be asked, Refused when it refuses; `None` is "there is none".
What the answers mean is decided by who asks; nothing is decided or remembered here. Next: vips.py, amphora_ports.py."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec
from keystoneauth1.token_endpoint import Token
from openstack import exceptions as sdk

from frontinus.drivers.network.neutron.facts import (
    NetworkFacts,
    PortFacts,
    RuleFacts,
    SecurityGroupFacts,
    SubnetFacts,
)
from frontinus.drivers.openstack.cloud import Cloud, require_whole
from frontinus.drivers.openstack.trouble import Refused
from frontinus.model.ids import NetworkId, PortId, SubnetId

_T = TypeVar("_T")
Filters = Mapping[str, object]

_AT_ONCE = 500
"""So much of a list is asked for by one question, which Neutron has openstack.timeout to answer however much there is."""


class Neutron:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    # Ports

    def ports(self, **filters: object) -> list[PortFacts]:
        return self._list("ports", PortFacts, filters)

    def port(self, port_id: PortId) -> PortFacts | None:
        return self._find("ports", "port", port_id, PortFacts)

    def create_port(self, **body: object) -> PortFacts:
        return self._write("POST", "/ports", "port", body, PortFacts)

    def update_port(self, port_id: PortId, body: Mapping[str, object], *, revision: int | None = None) -> PortFacts:
        """With `revision`, only if the port is still of it: Refused with status 412 if not."""
        headers = {} if revision is None else {"If-Match": f"revision_number={revision}"}
        return self._write("PUT", f"/ports/{quote(port_id, safe='')}", "port", body, PortFacts, headers)

    def delete_port(self, port_id: PortId) -> None:
        self._delete(f"/ports/{quote(port_id, safe='')}")

    def set_port_tags(self, port_id: PortId, tags: Iterable[str]) -> None:
        self._request("PUT", f"/ports/{quote(port_id, safe='')}/tags", json={"tags": sorted(tags)})

    def add_port_tag(self, port_id: PortId, tag: str) -> None:
        self._request("PUT", f"/ports/{quote(port_id, safe='')}/tags/{quote(tag, safe='')}")

    def remove_port_tag(self, port_id: PortId, tag: str) -> None:
        self._delete(f"/ports/{quote(port_id, safe='')}/tags/{quote(tag, safe='')}")

    # Networks and subnets

    def network(self, network_id: NetworkId) -> NetworkFacts | None:
        return self._find("networks", "network", network_id, NetworkFacts)

    def networks(self, **filters: object) -> list[NetworkFacts]:
        return self._list("networks", NetworkFacts, filters)

    def networks_called(self, id_or_name: str) -> list[NetworkFacts]:
        """That of the id, or else all of the name."""
        return self.networks(id=id_or_name) or self.networks(name=id_or_name)

    def subnet(self, subnet_id: SubnetId) -> SubnetFacts | None:
        return self._find("subnets", "subnet", subnet_id, SubnetFacts)

    def subnets(self, **filters: object) -> list[SubnetFacts]:
        return self._list("subnets", SubnetFacts, filters)

    def free_addresses(self, network_id: NetworkId) -> dict[SubnetId, int]:
        """How many addresses each subnet of the network has left; nothing where Neutron cannot say
        (extension network-ip-availability)."""
        try:
            answer = self._request("GET", f"/network-ip-availabilities/{quote(network_id, safe='')}")
        except Refused:
            return {}
        found = answer["network_ip_availability"]["subnet_ip_availability"]
        return {SubnetId(x["subnet_id"]): int(x["total_ips"]) - int(x["used_ips"]) for x in found}

    # Security groups

    def groups(self, **filters: object) -> list[SecurityGroupFacts]:
        return self._list("security-groups", SecurityGroupFacts, filters)

    def create_group(self, **body: object) -> SecurityGroupFacts:
        return self._write("POST", "/security-groups", "security_group", body, SecurityGroupFacts)

    def delete_group(self, group_id: str) -> None:
        self._delete(f"/security-groups/{quote(group_id, safe='')}")

    def rules(self, **filters: object) -> list[RuleFacts]:
        return self._list("security-group-rules", RuleFacts, filters)

    def create_rules(self, bodies: Sequence[Mapping[str, object]]) -> None:
        self._request("POST", "/security-group-rules", json={"security_group_rules": list(bodies)})

    def delete_rule(self, rule_id: str) -> None:
        self._delete(f"/security-group-rules/{quote(rule_id, safe='')}")

    # Others

    def extensions(self) -> frozenset[str]:
        answer = self._request("GET", "/extensions")
        return frozenset(str(x["alias"]) for x in answer["extensions"])

    def seen_by(self, token: str, collection: str, object_id: str) -> Mapping[str, Any] | None:
        """The object as whoever has the token sees it; None when he does not. Raises Refused with status 401 when the token
        is not valid."""

        def question(network: Any) -> Any:
            auth = Token(endpoint=network.get_endpoint(), token=token)
            response = network.get(f"/{collection}/{quote(object_id, safe='')}", auth=auth)
            if response.status_code == HTTPStatus.UNAUTHORIZED:
                return response.status_code
            sdk.raise_from_response(response)
            require_whole(response)
            return response.json()

        try:
            answer = self._cloud.call("network", question)
        except Refused as refused:
            if refused.status in (HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST):
                return None
            raise
        if answer == HTTPStatus.UNAUTHORIZED:
            raise Refused("network", HTTPStatus.UNAUTHORIZED, "", "the token is not valid any more")
        return next(iter(answer.values()), None)

    def shown(self, collection: str, object_id: str) -> Mapping[str, Any] | None:
        """The object as our account sees it."""
        try:
            answer = self._request("GET", f"/{collection}/{quote(object_id, safe='')}")
        except Refused as refused:
            if refused.status == HTTPStatus.NOT_FOUND:
                return None
            raise
        return next(iter(answer.values()), None)

    # How all of them ask

    def _list(self, collection: str, kind: type[_T], filters: Filters) -> list[_T]:
        asked = {"fields": _fields(kind), "limit": _AT_ONCE, **filters}
        found = self._cloud.listed("network", f"/{collection}", collection.replace("-", "_"), asked)
        return msgspec.convert(found, list[kind], strict=False)  # type: ignore[valid-type]

    def _find(self, collection: str, key: str, object_id: str, kind: type[_T]) -> _T | None:
        try:
            answer = self._request("GET", f"/{collection}/{quote(object_id, safe='')}")
        except Refused as refused:
            if refused.status == HTTPStatus.NOT_FOUND:
                return None
            raise
        return msgspec.convert(answer[key], kind, strict=False)

    def _write(
        self,
        method: str,
        path: str,
        key: str,
        body: Mapping[str, object],
        kind: type[_T],
        headers: Mapping[str, str] | None = None,
    ) -> _T:
        answer = self._request(method, path, json={key: body}, headers=dict(headers or {}))
        return msgspec.convert(answer[key], kind, strict=False)

    def _delete(self, path: str) -> None:
        self._cloud.delete("network", path)

    def _request(self, method: str, path: str, **words: Any) -> Any:
        return self._cloud.request("network", method, path, **words)


def _fields(kind: type[Any]) -> list[str]:
    return [x.name for x in msgspec.structs.fields(kind)]

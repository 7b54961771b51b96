"""A Neutron in memory, with as much of its API as our driver asks for: lists by filters and in pages, ports with addresses, groups
with rules. Whoever tests changes `things` behind the driver's back."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Any

import requests

from frontinus.drivers.network.neutron.driver import NeutronNetwork, NeutronSettings
from frontinus.model.ids import NetworkId, ProjectId, SubnetId, new_id

from tests.unit.drivers.little_cloud import LittleCloud, answer, refusal

OURS, THEIRS = ProjectId("ours"), ProjectId("theirs")
NETWORK, FIRST, SECOND = NetworkId("net"), SubnetId("first"), SubnetId("second")
SINGULAR = {
    "ports": "port",
    "networks": "network",
    "subnets": "subnet",
    "security-groups": "security_group",
    "security-group-rules": "security_group_rule",
}


class MemoryNeutron(LittleCloud):
    """`things` are by collection and id; `most` is what it gives at once (pagination_max_limit), `lists` what was asked of
    lists."""

    def __init__(self, *, most: int = 1000) -> None:
        super().__init__()
        self.most = most
        self.lists: list[tuple[str, Mapping[str, Any]]] = []
        self.things: dict[str, dict[str, dict[str, Any]]] = {x: {} for x in SINGULAR}
        self.things["networks"][NETWORK] = {"id": NETWORK, "name": "front", "project_id": THEIRS}
        for subnet_id, cidr in ((FIRST, "10.20.0.0/24"), (SECOND, "10.21.0.0/24")):
            self.things["subnets"][subnet_id] = {
                "id": subnet_id,
                "network_id": NETWORK,
                "name": subnet_id,
                "cidr": cidr,
                "ip_version": 4,
                "allocation_pools": [],
            }

    def driver(self) -> NeutronNetwork:
        connection: Any = self
        return NeutronNetwork(NeutronSettings(), lambda _: connection)

    @property
    def ports(self) -> dict[str, dict[str, Any]]:
        return self.things["ports"]

    @property
    def groups(self) -> dict[str, dict[str, Any]]:
        return self.things["security-groups"]

    def request(self, path: str, method: str, **words: Any) -> requests.Response:
        collection, *rest = path.strip("/").split("/")
        if collection not in self.things:
            return self._refused(path, method, "NotFound", "no such extension", 404)
        have, one = self.things[collection], SINGULAR[collection]
        if not rest and method == "GET":
            return self._listed(collection, words.get("params") or {})
        if not rest:
            return self._made(path, collection, words["json"])
        if rest[0] not in have:
            return self._refused(path, method, f"{one}NotFound", f"{one} {rest[0]} could not be found", 404)
        thing = have[rest[0]]
        match method, rest[1:]:
            case "GET", []:
                return answer({one: thing})
            case "PUT", []:
                thing.update(words["json"][one])
                return answer({one: thing})
            case "DELETE", []:
                del have[rest[0]]
            case "PUT", ["tags"]:
                thing["tags"] = words["json"]["tags"]
            case "PUT", ["tags", tag]:
                thing["tags"] = sorted({*thing["tags"], tag})
            case "DELETE", ["tags", tag]:
                thing["tags"] = [x for x in thing["tags"] if x != tag]
            case _:
                raise AssertionError(f"{method} {path} was not expected")
        return answer(None, 204)

    def _listed(self, collection: str, asked: Mapping[str, Any]) -> requests.Response:
        self.lists.append((collection, asked))
        found = [x for _, x in sorted(self.things[collection].items()) if _fits(x, asked)]
        if "marker" in asked:
            found = [x for x in found if x["id"] > asked["marker"]]
        size = min(int(asked.get("limit", self.most)), self.most)
        key = collection.replace("-", "_")
        links = {f"{key}_links": [{"rel": "next", "href": "http://10.0.0.1:9696/"}]} if len(found) > size else {}
        return answer({key: found[:size], **links})

    def _made(self, path: str, collection: str, document: Mapping[str, Any]) -> requests.Response:
        one = SINGULAR[collection]
        if one not in document:  # several at once
            for each in document[f"{one}s"]:
                self._add(collection, {"ethertype": "IPv4", **each})
            return answer({f"{one}s": []}, 201)
        wish = dict(document[one])
        if collection == "ports":
            taken = {x["ip_address"] for port in self.ports.values() for x in port["fixed_ips"]}
            fixed = [self._address(x, taken) for x in wish["fixed_ips"]]
            if any(x is None for x in fixed):
                return self._refused(path, "POST", "IpAddressAlreadyAllocated", "it is allocated", 409)
            wish = {"tags": [], "device_id": "", "device_owner": "", "description": "", **wish, "fixed_ips": fixed}
        return answer({one: self._add(collection, wish)}, 201)

    def _add(self, collection: str, thing: Mapping[str, Any]) -> dict[str, Any]:
        made = {**thing, "id": new_id()}
        self.things[collection][made["id"]] = made
        return made

    def _address(self, wish: Mapping[str, Any], taken: set[str]) -> dict[str, Any] | None:
        hosts = ip_network(self.things["subnets"][wish["subnet_id"]]["cidr"]).hosts()
        free = next(str(x) for x in itertools.islice(hosts, 1, None) if str(x) not in taken)
        address = str(ip_address(wish.get("ip_address", free)))
        return None if address in taken else {"subnet_id": wish["subnet_id"], "ip_address": address}

    def _refused(self, path: str, method: str, kind: str, message: str, status: int) -> requests.Response:
        return refusal({"NeutronError": {"type": kind, "message": message}}, status, path, method)


def _fits(thing: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    for key, wanted in asked.items():
        if key in ("fields", "limit", "marker", "fixed_ips"):
            continue
        if key == "tags":
            if not set(wanted.split(",")) <= set(thing.get("tags", ())):
                return False
        elif thing.get(key, "") not in (wanted if isinstance(wanted, list | tuple) else (wanted,)):
            return False
    return True

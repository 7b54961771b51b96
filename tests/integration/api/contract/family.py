"""Objects to try the contract on: the least that each kind needs, where it is made, and what goes with an attribute."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any

from tests.contract import facts
from tests.integration.api.world import SUBNET_ID, Answer, World

TREE = ("loadbalancer", "listener", "pool", "member", "healthmonitor", "l7policy", "rule")
"""Keys of what hangs on a load balancer."""

OFFERS = {
    "flavorprofile": "flavorprofile",
    "flavor": "flavor",
    "availability_zone_profile": "availabilityzoneprofile",
    "availability_zone": "availabilityzone",
}
"""Keys of what operators offer, and how resources.yaml calls the resource."""

CERTIFICATE = "0a1b2c3d-0000-4000-8000-00000000c0de"
"""A reference to a secret."""

UPDATE_OF_NOTHING: Mapping[str, Mapping[str, Any]] = {"rule": {"invert": False}, "l7policy": {"name": "n"}}
"""A change that is none, where an empty one is not taken."""

_TLS = {"protocol": "TERMINATED_HTTPS", "default_tls_container_ref": CERTIFICATE}
_CLIENTS = {**_TLS, "client_ca_tls_container_ref": CERTIFICATE}
_TO_URL = {"action": "REDIRECT_TO_URL", "redirect_url": "http://www.example.com"}

COMPANIONS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "listener": {
        "default_tls_container_ref": _TLS,
        "sni_container_refs": _TLS,
        "client_ca_tls_container_ref": _TLS,
        "client_authentication": _CLIENTS,
        "client_crl_container_ref": _CLIENTS,
        "hsts_max_age": _TLS,
        "hsts_include_subdomains": {**_TLS, "hsts_max_age": 1},
        "hsts_preload": {**_TLS, "hsts_max_age": 1},
        "tls_ciphers": _TLS,
        "tls_versions": _TLS,
        "alpn_protocols": _TLS,
    },
    "pool": {"crl_container_ref": {"ca_tls_container_ref": CERTIFICATE}},
    "healthmonitor": {"domain_name": {"http_version": 1.1}},
    "l7policy": {
        "redirect_url": _TO_URL,
        "redirect_prefix": {"action": "REDIRECT_PREFIX", "redirect_prefix": "http://www.example.com"},
        "redirect_pool_id": {"action": "REDIRECT_TO_POOL"},
        "redirect_pool": {"action": "REDIRECT_TO_POOL"},
        "redirect_http_code": _TO_URL,
    },
    "rule": {"key": {"type": "HEADER", "key": "X-Name"}},
}
"""What must stand beside an attribute so that its own rules can be seen."""


_NUMBERS = itertools.count()
"""For names that belong to nobody's load balancer, and must be unique."""


class Family:
    """A load balancer with one of everything below it."""

    def __init__(self, world: World, ids: dict[str, str]) -> None:
        self.world = world
        self.ids = ids
        self.next_port = 8000

    @classmethod
    async def born(cls, world: World) -> Family:
        asked: Any = {"name": "family", "vip_subnet_id": SUBNET_ID}
        pool = {
            "name": "the pool",
            "protocol": "HTTP",
            "lb_algorithm": "ROUND_ROBIN",
            "members": [{"address": "192.0.2.1", "protocol_port": 80}],
            "healthmonitor": {"type": "HTTP", "delay": 3, "timeout": 2, "max_retries": 3},
        }
        rule = {"type": "PATH", "compare_type": "EQUAL_TO", "value": "/"}
        asked["pools"] = [pool, {"name": "datagrams", "protocol": "UDP", "lb_algorithm": "ROUND_ROBIN"}]
        asked["listeners"] = [
            {"protocol": "HTTP", "protocol_port": 80, "l7policies": [{"action": "REJECT", "rules": [rule]}]}
        ]
        world.network.vips.clear()  # addresses of a /24 are soon used up
        made = (await world.call("POST", "loadbalancers", {"loadbalancer": asked})).one("loadbalancer")
        listener, pool = made["listeners"][0], made["pools"][0]
        policy = listener["l7policies"][0]
        ids = {
            "loadbalancer": made["id"],
            "listener": listener["id"],
            "pool": pool["id"],
            "datagrams": made["pools"][1]["id"],
            "member": pool["members"][0]["id"],
            "healthmonitor": pool["healthmonitor"]["id"],
            "l7policy": policy["id"],
            "rule": policy["rules"][0]["id"],
        }
        return cls(world, ids)

    # ---------------------------------------------------------------- where

    def path(self, key: str) -> str:
        if key == "member":
            return f"pools/{self.ids['pool']}/members"
        if key == "rule":
            return f"l7policies/{self.ids['l7policy']}/rules"
        return collection_path(key)

    def item(self, key: str, item_id: str | None = None) -> str:
        return f"{self.path(key)}/{item_id or self.ids[key]}"

    # ---------------------------------------------------------------- what

    def sample_pool(self, protocol: str = "HTTP") -> dict[str, Any]:
        return {"name": f"{protocol} pool", "protocol": protocol, "lb_algorithm": "ROUND_ROBIN"}

    async def minimum(self, key: str, values: Mapping[str, Any] = {}) -> dict[str, Any]:
        """The least that a create of this kind needs, of something that does not clash with what is there, and that
        goes with these values."""
        self.next_port += 1
        match key:
            case "loadbalancer":
                self.world.network.vips.clear()
                return {"vip_subnet_id": SUBNET_ID}
            case "listener":
                return {
                    **listener_with(values.get("protocol")),
                    "protocol_port": self.next_port,
                    "loadbalancer_id": self.ids["loadbalancer"],
                }
            case "pool":
                return {"protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN", "loadbalancer_id": self.ids["loadbalancer"]}
            case "member":
                return {"address": f"192.0.2.{self.next_port % 250 + 2}", "protocol_port": self.next_port}
            case "healthmonitor":
                protocol = "UDP" if values.get("type") in ("SCTP", "UDP-CONNECT") else "HTTP"
                pool_id = await self.world.pool(self.ids["loadbalancer"], protocol=protocol)
                return {"pool_id": pool_id, "type": "HTTP", "delay": 3, "timeout": 2, "max_retries": 3}
            case "l7policy":
                return {"listener_id": self.ids["listener"], **self.target_of(values.get("action"))}
            case "rule":
                return rule_with(values.get("type"), f"/{self.next_port}")
            case "flavorprofile":
                return {"name": "a profile", "provider_name": "amphora", "flavor_data": "{}"}
            case "availability_zone_profile":
                return {"name": "a profile", "provider_name": "amphora", "availability_zone_data": "{}"}
            case "flavor":
                return {"name": f"flavor {next(_NUMBERS)}", "flavor_profile_id": await self.made("flavorprofile")}
            case "availability_zone":
                profile_id = await self.made("availability_zone_profile")
                return {"name": f"zone-{next(_NUMBERS)}", "availability_zone_profile_id": profile_id}
            case _:
                raise AssertionError(key)

    def target_of(self, action: Any) -> dict[str, Any]:
        """What a policy with this action needs."""
        targets: dict[str, dict[str, Any]] = {
            "REDIRECT_TO_URL": {"redirect_url": "http://www.example.com"},
            "REDIRECT_PREFIX": {"redirect_prefix": "http://www.example.com"},
            "REDIRECT_TO_POOL": {"redirect_pool_id": self.ids["pool"]},
        }
        return {"action": "REJECT", **(targets.get(action, {}) if isinstance(action, str) else {})}

    # ---------------------------------------------------------------- how

    async def create(self, key: str, /, **values: Any) -> Answer:
        body = {**await self.minimum(key, values), **values}
        return await self.world.call("POST", self.path(key), encoded({key: body}))

    async def made(self, key: str, /, **values: Any) -> str:
        """A new one; what its path ends with."""
        shown = (await self.create(key, **values)).one(key)
        return str(shown["name"] if key == "availability_zone" else shown["id"])

    async def update(self, key: str, item_id: str | None = None, /, **values: Any) -> Answer:
        return await self.world.call("PUT", self.item(key, item_id), encoded({key: values}))

    async def show(self, key: str, item_id: str | None = None) -> Any:
        return (await self.world.call("GET", self.item(key, item_id))).one(key)

    async def create_nested_without(self, key: str, wire: str) -> Answer:
        """The same without an attribute that the least of its kind has."""
        least = await self._nested_minimum(key, {})
        kept = {x: y for x, y in least.items() if x not in PARENTS_OF.get(key, ()) and x != wire}
        self.world.network.vips.clear()
        return await self.world.call("POST", "loadbalancers", encoded({"loadbalancer": nested_in(key, kept)}))

    async def create_nested(self, key: str, /, **values: Any) -> tuple[Answer, Any]:
        """A whole load balancer that holds one of this kind with these values; the answer, and how it shows that one."""
        least = {x: y for x, y in (await self._nested_minimum(key, values)).items() if x not in PARENTS_OF.get(key, ())}
        self.world.network.vips.clear()
        tree = nested_in(key, {**least, **values})
        answer = await self.world.call("POST", "loadbalancers", encoded({"loadbalancer": tree}))
        return answer, found_in(key, answer.one("loadbalancer")) if answer.status == 201 else None

    async def _nested_minimum(self, key: str, values: Mapping[str, Any]) -> dict[str, Any]:
        if key == "healthmonitor":  # whose own needs a pool to be made
            return {"type": "HTTP", "delay": 3, "timeout": 2, "max_retries": 3}
        return await self.minimum(key, values)


PARENTS_OF: Mapping[str, tuple[str, ...]] = {
    "listener": ("loadbalancer_id",),
    "pool": ("loadbalancer_id", "listener_id"),
    "l7policy": ("listener_id", "redirect_pool_id"),
}


def collection_path(key: str) -> str:
    resource = resource_of(key)
    return str(resource.get("path_segment", resource["collection_key"]))


def resource_of(key: str) -> Any:
    return facts.resources()["resources"][OFFERS.get(key) or facts.RESOURCE_NAMES[key]]


def encoded(document: object) -> bytes:
    """In UTF-8; half a surrogate pair, which has none, is written as its escape, as a client's JSON library does."""
    try:
        return json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(document).encode()


def listener_with(protocol: object) -> dict[str, Any]:
    certificate = {"default_tls_container_ref": CERTIFICATE} if protocol == "TERMINATED_HTTPS" else {}
    return {"protocol": "HTTP", **certificate}


def rule_with(type_: object, value: str) -> dict[str, Any]:
    special: dict[str, dict[str, Any]] = {
        "COOKIE": {"key": "session", "value": "abc"},
        "HEADER": {"key": "X-Name"},
        "SSL_DN_FIELD": {"key": "CN"},
        "SSL_CONN_HAS_CERT": {"value": "true"},
        "SSL_VERIFY_RESULT": {"value": "0"},
    }
    return {
        "type": "PATH",
        "compare_type": "EQUAL_TO",
        "value": value,
        **(special.get(type_, {}) if isinstance(type_, str) else {}),
    }


def nested_in(key: str, one: Any) -> dict[str, Any]:
    """A whole load balancer around one object."""
    tree: dict[str, Any] = {"vip_subnet_id": SUBNET_ID}
    pool: Any = {"name": "around", "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN"}
    listener: Any = {"protocol": "HTTP", "protocol_port": 80}
    policy: Any = {"action": "REJECT"}
    match key:
        case "listener":
            listener = one
        case "pool":
            return {**tree, "pools": [one]}
        case "member":
            return {**tree, "pools": [{**pool, "members": [one]}]}
        case "healthmonitor":
            if one.get("type") in ("SCTP", "UDP-CONNECT"):
                pool["protocol"] = "UDP"
            return {**tree, "pools": [{**pool, "healthmonitor": one}]}
        case "l7policy":
            if one.get("action") == "REDIRECT_TO_POOL" and "redirect_pool" not in one:
                one = {**one, "redirect_pool": pool}
            listener["l7policies"] = [one]
        case _:
            policy["rules"] = [one]
            listener["l7policies"] = [policy]
    return {**tree, "listeners": [listener]}


def found_in(key: str, tree: Any) -> Any:
    """The one object of a kind in the answer to a create of a whole load balancer."""
    match key:
        case "listener":
            return tree["listeners"][0]
        case "pool":
            return tree["pools"][0]
        case "member":
            return tree["pools"][0]["members"][0]
        case "healthmonitor":
            return tree["pools"][0]["healthmonitor"]
        case "l7policy":
            return tree["listeners"][0]["l7policies"][0]
        case _:
            return tree["listeners"][0]["l7policies"][0]["rules"][0]

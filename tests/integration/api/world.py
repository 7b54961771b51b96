"""The API over a real store and a fake network, called in-process: bytes in, bytes out, nothing patched."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from msgspec.structs import replace
from starlette.types import ASGIApp, Message

from frontinus.api.app import create_app
from frontinus.api.settings import ApiSettings
from frontinus.model.capabilities import FEATURES, Capabilities
from frontinus.model.cohorts import CohortName
from frontinus.model.enums import (
    HealthMonitorType,
    LbAlgorithm,
    ListenerProtocol,
    OperatingStatus,
    PoolProtocol,
    ProvisioningStatus,
    SessionPersistenceType,
    Topology,
)
from frontinus.model.ids import ControllerId, LoadBalancerId
from frontinus.model.offers import AVAILABILITY_ZONE_KEYS, FLAVOR_KEYS
from frontinus.model.tree import LoadBalancerTree
from frontinus.store import controllers, trees
from frontinus.store.engine import Store, Transaction
from frontinus.testing.fake_amphora import FakeAmphoraDriver
from frontinus.testing.fake_network import FAKE_SUBNET, FakeNetwork

SUBNET_ID = FAKE_SUBNET.id
COHORT = CohortName(FakeAmphoraDriver.name, FakeAmphoraDriver.version)
UNKNOWN = "5ca1ab1e-0000-4000-8000-00000000dead"
NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)

EVERYTHING = Capabilities(
    topologies=frozenset(Topology),
    listener_protocols=frozenset(ListenerProtocol),
    pool_protocols=frozenset(PoolProtocol),
    lb_algorithms=frozenset(LbAlgorithm),
    health_monitor_types=frozenset(HealthMonitorType),
    session_persistence_types=frozenset(SessionPersistenceType),
    persistence_granularities=frozenset({"255.255.255.0"}),
    features=frozenset(FEATURES),
    flavor_keys=frozenset(FLAVOR_KEYS),
    availability_zone_keys=frozenset(AVAILABILITY_ZONE_KEYS),
)


class Clock:
    """Every look at it is a millisecond later, so that what is made later is younger."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        self.now += timedelta(milliseconds=1)
        return self.now


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def one(self, key: str) -> Any:
        """The object under its envelope, of an answer that must be a success."""
        assert self.status in (200, 201), (self.status, self.body)
        return self.json[key]

    @property
    def fault(self) -> str:
        """The fault's text, of an answer that must be an error in the service form."""
        body = self.json
        assert set(body) == {"faultcode", "faultstring", "debuginfo"}, body
        assert body["faultcode"] == ("Client" if self.status < 500 else "Server")
        assert body["debuginfo"] is None
        return str(body["faultstring"])


@dataclass
class World:
    store: Store
    network: FakeNetwork
    clock: Clock
    app: ASGIApp
    ids: dict[str, str] = field(default_factory=dict)
    """Whatever a test wants to remember."""

    @classmethod
    async def open(
        cls, database: str | Path, capabilities: Capabilities | None = EVERYTHING, settings: ApiSettings | None = None
    ) -> World:
        """On a database that is up to date and empty: a URL, or an SQLite file."""
        store = Store.open(database if isinstance(database, str) else f"sqlite:///{database}")
        network, clock = FakeNetwork(), Clock()
        world = cls(store, network, clock, create_app(store, network, settings or ApiSettings(), clock))
        if capabilities is not None:
            await world.register(capabilities)
        return world

    async def register(self, capabilities: Capabilities, provider: str = "amphora") -> None:
        controller = controllers.Controller(
            id=ControllerId(f"controller of {provider}"),
            # What a cohort can do is one thing, whichever of its names is asked for.
            driver=COHORT.driver if provider == "amphora" else f"driver of {provider}",
            driver_version=COHORT.driver_version,
            host="here",
            pid=1,
            capabilities=capabilities,
            provider=provider,
            started_at=self.clock(),
            seen_at=self.clock(),
        )
        await self.store.transact(lambda tx: controllers.register(tx, controller))

    async def close(self) -> None:
        await self.store.close()

    async def call(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str | None] | None = None
    ) -> Answer:
        """`body` is JSON unless it is bytes; a header that is None is not sent; `path` may have a query, and is below
        /v2/lbaas unless it starts with a slash."""
        raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        target = path if path.startswith("/") else f"/v2/lbaas/{path}"
        where, _, query = target.partition("?")
        sent: dict[str, str | None] = {"host": "lb.example:9876"}
        if body is not None:
            sent |= {"content-type": "application/json", "content-length": str(len(raw))}
        sent |= {key.lower(): value for key, value in (headers or {}).items()}
        messages: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": raw, "more_body": False}

        async def send(message: Message) -> None:
            messages.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": where,
            "query_string": quote(query, safe="%=&,:+-_.~;@/!*'()").encode(),
            "headers": [
                (key.encode("latin-1"), value.encode("latin-1")) for key, value in sent.items() if value is not None
            ],
            "scheme": "http",
            "server": ("127.0.0.1", 9876),
        }
        await self.app(scope, receive, send)
        return Answer(
            status=messages[0]["status"],
            headers={key.decode(): value.decode() for key, value in messages[0]["headers"]},
            body=b"".join(x.get("body", b"") for x in messages[1:]),
        )

    async def make(self, key: str, /, **values: Any) -> Any:
        """A new object of one kind, or of another pool or policy when `pool` or `l7policy` is named."""
        paths = {
            "loadbalancer": "loadbalancers",
            "listener": "listeners",
            "pool": "pools",
            "healthmonitor": "healthmonitors",
            "l7policy": "l7policies",
            "flavorprofile": "flavorprofiles",
            "flavor": "flavors",
            "availability_zone_profile": "availabilityzoneprofiles",
            "availability_zone": "availabilityzones",
        }
        if key == "member":
            path = f"pools/{values.pop('pool')}/members"
        elif key == "rule":
            path = f"l7policies/{values.pop('l7policy')}/rules"
        else:
            path = paths[key]
        return (await self.call("POST", path, {key: values})).one(key)

    async def load_balancer(self, **values: Any) -> str:
        return str((await self.make("loadbalancer", vip_subnet_id=SUBNET_ID, **values))["id"])

    async def listener(self, load_balancer_id: str, **values: Any) -> str:
        given = {"protocol": "HTTP", "protocol_port": 80, "loadbalancer_id": load_balancer_id, **values}
        return str((await self.make("listener", **given))["id"])

    async def pool(self, load_balancer_id: str, **values: Any) -> str:
        given = {"protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN", "loadbalancer_id": load_balancer_id, **values}
        return str((await self.make("pool", **given))["id"])

    async def member(self, pool_id: str, **values: Any) -> str:
        return str(
            (await self.make("member", pool=pool_id, **{"address": "192.0.2.1", "protocol_port": 80, **values}))["id"]
        )

    async def health_monitor(self, pool_id: str, **values: Any) -> str:
        given = {"pool_id": pool_id, "type": "HTTP", "delay": 3, "timeout": 2, "max_retries": 3, **values}
        return str((await self.make("healthmonitor", **given))["id"])

    async def flavor(self, name: str = "gold", provider: str = "amphora", **data: object) -> str:
        profile = await self.make("flavorprofile", name="p", provider_name=provider, flavor_data=json.dumps(data))
        return str((await self.make("flavor", name=name, flavor_profile_id=profile["id"]))["id"])

    async def availability_zone(self, name: str = "east", provider: str = "amphora", **data: object) -> str:
        profile = await self.make(
            "availability_zone_profile", name="p", provider_name=provider, availability_zone_data=json.dumps(data)
        )
        made = await self.make("availability_zone", name=name, availability_zone_profile_id=profile["id"])
        return str(made["name"])

    async def offers(self) -> dict[str, str]:
        """A flavor and a zone, and beside those a profile of each kind that nothing stands on; by the words of paths."""
        made: dict[str, str] = {}
        for number in (1, 2):
            flavor = {"name": f"f{number}", "provider_name": "amphora", "flavor_data": "{}"}
            zone = {"name": f"z{number}", "provider_name": "amphora", "availability_zone_data": "{}"}
            for path, key, name, values in (
                ("flavorprofiles", "flavorprofile", "flavor_profile", flavor),
                ("availabilityzoneprofiles", "availability_zone_profile", "availability_zone_profile", zone),
            ):
                made[name] = (await self.call("POST", path, {key: values})).one(key)["id"]
            if number == 1:
                asked = {"name": "f", "flavor_profile_id": made["flavor_profile"]}
                made["flavor"] = (await self.call("POST", "flavors", {"flavor": asked})).one("flavor")["id"]
                asked = {"name": "z", "availability_zone_profile_id": made["availability_zone_profile"]}
                made["availability_zone"] = (
                    await self.call("POST", "availabilityzones", {"availability_zone": asked})
                ).one("availability_zone")["name"]
        return made

    async def tree(self, load_balancer_id: str) -> LoadBalancerTree:
        found = await self.store.read(lambda tx: trees.read_tree(tx, LoadBalancerId(load_balancer_id)))
        assert found is not None
        return found

    async def settle(self, load_balancer_id: str, status: ProvisioningStatus = ProvisioningStatus.ACTIVE) -> None:
        """As if a controller had carried everything out: all that is not on its way out gets the status."""

        def settled(value: Any) -> Any:
            return (
                value
                if value.delete_requested
                else replace(value, provisioning_status=status, operating_status=OperatingStatus.ONLINE)
            )

        def work(tx: Transaction) -> None:
            before = trees.read_tree(tx, LoadBalancerId(load_balancer_id), for_update=True)
            assert before is not None
            branches = ("listeners", "pools", "members", "health_monitors", "l7_policies", "l7_rules")
            after = replace(
                before,
                load_balancer=settled(before.load_balancer),
                **{name: tuple(settled(x) for x in getattr(before, name)) for name in branches},
            )
            trees.write_tree(tx, before, after)

        await self.store.transact(work)

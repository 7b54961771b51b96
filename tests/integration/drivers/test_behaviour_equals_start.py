"""Members that come while HAProxy runs, and pools that change, are spoken to and examined as after a start.

test_runtime_equals_start.py compares what HAProxy says of itself; here it is what members hear, and what came of it. All
kinds stand side by side in one load balancer, so that waiting for checks is paid once."""

from __future__ import annotations

import asyncio
import csv
import http.client
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace

from frontinus.model.certificates import Authorities, Revocations, Secrets
from frontinus.model.enums import HealthMonitorType, HttpMethod, LbAlgorithm, ListenerProtocol, PoolProtocol
from frontinus.model.tree import LoadBalancerTree, Member
from frontinus.testing.certificates import TestAuthority

from tests.integration.drivers.balancer import answers
from tests.integration.drivers.tls_world import AUTHORITY, REVOKED
from tests.integration.drivers.witness import TRAFFIC, Heard, Identity, Witness
from tests.integration.drivers.world import MEMBERS, VIP, World, free_port, until
from tests.unit.drivers.trees import a_listener, a_load_balancer, a_member, a_monitor, a_pool, a_tree, number

NAME = "members.example.org"
OWN = "local:own"
ASIDE = "127.84.0.9"
CLOSED = 9
"""A port where nobody listens."""

TLS: dict[str, Any] = {"tls_enabled": True, "tls_versions": ("TLSv1.3",), "alpn_protocols": ("http/1.1",)}
VERIFIED: dict[str, Any] = {
    **TLS,
    "ca_tls_container_ref": AUTHORITY,
    "crl_container_ref": REVOKED,
    "tls_container_ref": OWN,
}
HTTP: dict[str, Any] = {"type": HealthMonitorType.HTTP, "url_path": "/health"}
HTTPS: dict[str, Any] = {
    "type": HealthMonitorType.HTTPS,
    "url_path": "/health",
    "http_version": 1.1,
    "domain_name": NAME,
}
TCP: dict[str, Any] = {"type": HealthMonitorType.TCP}
HELLO: dict[str, Any] = {"type": HealthMonitorType.TLS_HELLO}


@dataclass(frozen=True)
class Kind:
    """`aside`: where members are checked that are not checked where they serve: `port`, `address` or nowhere."""

    pool: dict[str, Any] = field(default_factory=dict)
    monitor: dict[str, Any] | None = None
    aside: str = ""
    address: str = MEMBERS
    listener: ListenerProtocol = ListenerProtocol.HTTP
    member: dict[str, Any] = field(default_factory=dict)

    @property
    def is_heard(self) -> bool:
        """Whether checks say something: one that only connects is over before the member knows of it."""
        speaks = bool(self.pool.get("tls_enabled")) or self.pool.get("protocol") in (
            PoolProtocol.PROXY,
            PoolProtocol.PROXYV2,
        )
        return self.monitor is not None and (self.monitor != TCP or (speaks and not self.aside))


PROXY, PROXYV2 = {"protocol": PoolProtocol.PROXY}, {"protocol": PoolProtocol.PROXYV2}
KINDS: dict[str, Kind] = {
    "plain": Kind(),
    "tcp": Kind(monitor=TCP),
    "http 1.0": Kind(monitor={**HTTP, "http_version": 1.0, "http_method": HttpMethod.OPTIONS}),
    "http 1.1": Kind(
        monitor={
            **HTTP,
            "http_version": 1.1,
            "domain_name": NAME,
            "url_path": "/a%20'b'?c=#",
            "expected_codes": "199-201",
        }
    ),
    "http at a port": Kind(monitor=HTTP, aside="port"),
    "http at an address": Kind(monitor=HTTP, aside="address"),
    "tcp pool": Kind({"protocol": PoolProtocol.TCP}, TCP, listener=ListenerProtocol.TCP),
    "least": Kind({"lb_algorithm": LbAlgorithm.LEAST_CONNECTIONS}, HTTP),
    "proxy": Kind(PROXY, HTTP),
    "proxy 2": Kind(PROXYV2, HTTP),
    "proxy 2 tcp": Kind(PROXYV2, TCP),
    "proxy at a port": Kind(PROXY, HTTP, aside="port"),
    "ipv6": Kind(monitor=HTTP, address="::1"),
    "backup": Kind(monitor=HTTP, member={"backup": True}),
    "tls tcp": Kind(TLS, TCP),
    "tls http": Kind(TLS, HTTP),
    "tls https": Kind(TLS, HTTPS),
    "tls hello": Kind(TLS, HELLO),
    "tls verified": Kind(VERIFIED, HTTPS),
    "tls at a port": Kind(TLS, HTTP, aside="port"),
    "tls https at a port": Kind(TLS, HTTPS, aside="port"),
    "tls proxy": Kind({**TLS, **PROXYV2}, HTTP),
}


class Place(NamedTuple):
    """Who plays a member: where it serves, and where it is checked when that is elsewhere."""

    serves: Witness
    aside: dict[str, Witness]

    def row(self, of: Kind, member: int, pool: int) -> Member:
        places: dict[str, dict[str, Any]] = {
            "port": {"monitor_port": self.aside["port"].port} if "port" in self.aside else {},
            "address": {"monitor_address": ASIDE},
        }
        fields = {**places.get(of.aside, {}), **of.member}
        return a_member(member, pool, address=self.serves.address, port=self.serves.port, **fields)

    def everybody(self) -> tuple[Witness, ...]:
        return (self.serves, *self.aside.values())


class Stage:
    """All kinds in one load balancer. Of the kind with the number n: listener 100 + n, pool 200 + n, and members that
    answer, 1000 + 10 * n and one more."""

    def __init__(self, world: World, directory: Path, kinds: Mapping[str, tuple[Kind, ...]]) -> None:
        """Of each name, the kinds that there will be one after the other."""
        self.world = world
        self.authority = TestAuthority("members")
        self.identity = Identity(directory, self.authority, NAME)
        self.names = list(kinds)
        self.ports = [free_port() for _ in kinds]
        self.secrets = Secrets(
            certificates={OWN: self.authority.issue("the amphora")},
            authorities={AUTHORITY: Authorities(certificates=(self.authority.pem,))},
            revocations={REVOKED: Revocations(lists=(self.authority.revoke(),))},
        )
        self.places = [(self._place(turns), self._place(turns)) for turns in kinds.values()]

    def _place(self, turns: tuple[Kind, ...]) -> Place:
        asides = {kind.aside for kind in turns}
        while True:
            serves = Witness("witness", self.identity, turns[0].address)
            aside = {"port": Witness("aside", self.identity, turns[0].address)} if "port" in asides else {}
            if "address" not in asides:
                return Place(serves, aside)
            try:
                return Place(serves, {**aside, "address": Witness("aside", self.identity, ASIDE, serves.port)})
            except OSError:  # somebody has this port there
                for witness in (serves, *aside.values()):
                    witness.close()

    def everybody(self) -> Iterator[Witness]:
        for pair in self.places:
            for place in pair:
                yield from place.everybody()

    def tree(self, kinds: list[Kind], *, both: bool, timeout: int = 50_000, well: bool = False) -> LoadBalancerTree:
        """Of each kind one member that answers and one that does not; with `both`, two of each. `well`: only who answers."""
        members: list[Member] = []
        for turn, kind in enumerate(kinds):
            for index, place in enumerate(self.places[turn][: 1 + both]):
                row = place.row(kind, 1000 + 10 * turn + index, 200 + turn)
                members.append(row)
                if kind.monitor is not None and not well:
                    dead = a_member(
                        1005 + 10 * turn + index, 200 + turn, address=kind.address, port=CLOSED, **kind.member
                    )
                    members.append(dead)
        timing = {"delay": 1, "timeout": 5, "max_retries": 1, "max_retries_down": 1}
        return a_tree(
            a_load_balancer(VIP),
            listeners=[
                a_listener(100 + turn, x.listener, self.ports[turn], 200 + turn, timeout_client_data=timeout)
                for turn, x in enumerate(kinds)
            ],
            pools=[a_pool(200 + turn, **x.pool) for turn, x in enumerate(kinds)],
            members=members,
            monitors=[
                a_monitor(400 + turn, 200 + turn, **{**timing, **x.monitor})
                for turn, x in enumerate(kinds)
                if x.monitor is not None
            ],
        )

    def statuses(self) -> dict[str, tuple[str, ...]]:
        rows = csv.DictReader(self.world.runtime("show stat").removeprefix("# ").splitlines())
        return {
            row["svname"]: tuple(row[x].removeprefix("* ") for x in ("status", "check_status", "act", "bck", "weight"))
            for row in rows
            if row["svname"] not in ("FRONTEND", "BACKEND")
        }

    async def spoken_to(self, kinds: list[Kind], *, both: bool) -> dict[str, list[tuple[frozenset[Heard], ...]]]:
        """What each member heard from now on, of whom clients ask until all have been asked, and that is checked: name of
        the kind -> for each of its members, what was heard at each of its places."""
        await until(lambda: all(self._is_judged(x, turn, both=both) for turn, x in enumerate(kinds)), within=30)
        for witness in self.everybody():
            witness.forget()

        async def has_all(turn: int, kind: Kind) -> None:
            async def everyone_was_asked() -> bool:
                await asyncio.to_thread(_ask, self.ports[turn])
                return all(
                    place.serves.traffic and (not kind.is_heard or any(x.checks for x in place.everybody()))
                    for place in self.places[turn][: 1 + both]
                )

            await until(everyone_was_asked, within=30)

        for turn, kind in enumerate(kinds):
            await has_all(turn, kind)
        return {
            name: [tuple(frozenset(x.heard) for x in place.everybody()) for place in self.places[turn][: 1 + both]]
            for turn, name in enumerate(self.names)
        }

    def were_checked(self, kinds: list[Kind]) -> bool:
        """Every member that is to be checked has been, whatever came of it."""
        found = self.statuses()
        return all(
            found[number(1000 + 10 * turn + index)][1] not in ("", "INI")
            for turn, kind in enumerate(kinds)
            for index in range(2)
            if kind.monitor is not None and kind.member.get("admin_state_up", True)
        )

    def _is_judged(self, kind: Kind, turn: int, *, both: bool) -> bool:
        """All its members are up and down as they should be, for the reason that they should."""
        if kind.monitor is None:
            return True
        found = self.statuses()
        well = [found.get(number(1000 + 10 * turn + index)) for index in range(1 + both)]
        dead = [found.get(number(1005 + 10 * turn + index)) for index in range(1 + both)]
        return (
            all(x is not None and x[0] == "UP" and x[1] in ("L7OK", "L6OK", "L4OK") for x in well)
            and all(x is None or x[0] == "DOWN" for x in dead)
            and len(set(well)) == len(set(dead)) == 1
        )


def _ask(port: int) -> int:
    connection = http.client.HTTPConnection(VIP, port, timeout=5)
    try:
        connection.request("GET", TRAFFIC)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


MakeStage = Callable[[Mapping[str, tuple[Kind, ...]]], Stage]


@pytest.fixture
def a_stage(world: World, tmp_path: Path) -> Iterator[MakeStage]:
    made: list[Stage] = []

    def make(kinds: Mapping[str, tuple[Kind, ...]]) -> Stage:
        made.append(Stage(world, tmp_path, kinds))
        return made[-1]

    yield make
    for stage in made:
        for witness in stage.everybody():
            witness.close()


async def test_who_comes_later_is_spoken_to_as_who_was_there(a_stage: MakeStage) -> None:
    """By a command, after a reload, and after HAProxy was killed."""
    stage = a_stage({name: (kind,) for name, kind in KINDS.items()})
    kinds = list(KINDS.values())
    await stage.world.apply(stage.tree(kinds, both=False), stage.secrets)
    await stage.spoken_to(kinds, both=False)
    assert (await stage.world.apply(stage.tree(kinds, both=True), stage.secrets)).action == "runtime"
    found = await stage.spoken_to(kinds, both=True)
    assert {name: later for name, (_, later) in found.items()} == {name: first for name, (first, _) in found.items()}
    assert (await stage.world.apply(stage.tree(kinds, both=True, timeout=60_000), stage.secrets)).action == "reload"
    assert await stage.spoken_to(kinds, both=True) == found
    pid = stage.world.haproxy_pids()[0]
    os.kill(pid, signal.SIGKILL)
    await until(lambda: pid not in stage.world.haproxy_pids() and all(answers(VIP, port) for port in stage.ports))
    assert await stage.spoken_to(kinds, both=True) == found


BY_RELOAD: dict[str, tuple[Kind, Kind]] = {
    "TLS begins": (Kind(monitor=TCP), Kind(TLS, TCP)),
    "TLS begins, and checks speak it": (Kind(monitor=TCP), Kind(TLS, HTTPS)),
    "TLS ends": (Kind(TLS, TCP), Kind(monitor=TCP)),
    "members are verified": (Kind(TLS, HTTPS), Kind(VERIFIED, HTTPS)),
    "TLS: checks come home": (Kind(TLS, HTTP, aside="port"), Kind(TLS, HTTP)),
    "TLS: checks go aside": (Kind(TLS, HTTP), Kind(TLS, HTTP, aside="port")),
    "PROXY: checks come home": (Kind(PROXY, HTTP, aside="port"), Kind(PROXY, HTTP)),
    "PROXY: checks come home from an address": (Kind(PROXYV2, HTTP, aside="address"), Kind(PROXYV2, HTTP)),
    "PROXY: checks go aside": (Kind(PROXY, HTTP), Kind(PROXY, HTTP, aside="port")),
    "PROXY: checks go elsewhere": (Kind(PROXY, HTTP, aside="port"), Kind(PROXY, HTTP, aside="address")),
    "a monitor comes": (Kind(), Kind(monitor=HTTP)),
    "a monitor goes": (Kind(monitor=HTTP), Kind()),
    "a monitor becomes another": (Kind(monitor=TCP), Kind(monitor=HTTP)),
    "a monitor asks for something else": (Kind(monitor=HTTP), Kind(monitor={**HTTP, "url_path": "/other"})),
    "a monitor asks for a name": (Kind(TLS, {**HTTPS, "domain_name": "other"}), Kind(TLS, HTTPS)),
    "an algorithm becomes another": (Kind(monitor=HTTP), Kind({"lb_algorithm": LbAlgorithm.SOURCE_IP_PORT}, HTTP)),
}
BY_COMMAND: dict[str, tuple[Kind, Kind]] = {
    "checks come home": (Kind(monitor=HTTP, aside="port"), Kind(monitor=HTTP)),
    "checks come home from an address": (Kind(monitor=HTTP, aside="address"), Kind(monitor=HTTP)),
    "checks go aside": (Kind(monitor=HTTP), Kind(monitor=HTTP, aside="port")),
    "checks go elsewhere": (Kind(TLS, HTTP, aside="port"), Kind(TLS, HTTP, aside="address")),
    "IPv6: checks come home": (Kind(monitor=TCP, aside="port", address="::1"), Kind(monitor=TCP, address="::1")),
    "members are let in": (Kind(monitor=HTTP, member={"admin_state_up": False}), Kind(monitor=HTTP)),
    "members have weight": (Kind(monitor=HTTP, member={"weight": 0}), Kind(monitor=HTTP, member={"weight": 3})),
}


@pytest.mark.parametrize(
    "changes, action",
    [
        pytest.param(BY_COMMAND, "runtime", id="command", marks=pytest.mark.long),
        pytest.param(BY_RELOAD, "reload", id="reload"),
    ],
)
async def test_what_changes_is_as_after_a_start(
    a_stage: MakeStage, changes: dict[str, tuple[Kind, Kind]], action: str
) -> None:
    stage = a_stage(changes)
    before, after = [first for first, _ in changes.values()], [then for _, then in changes.values()]
    wanted = stage.tree(after, both=True)
    await stage.world.apply(wanted, stage.secrets)
    expected = await stage.spoken_to(after, both=True)
    await stage.world.driver.retire(stage.world.amphora, wanted)
    assert (await stage.world.apply(stage.tree(before, both=True), stage.secrets)).action == "start"
    await until(lambda: stage.were_checked(before))
    assert (await stage.world.apply(wanted, stage.secrets)).action == action
    found = await stage.spoken_to(after, both=True)
    assert found == expected
    assert (await stage.world.apply(stage.tree(after, both=True, timeout=60_000), stage.secrets)).action == "reload"
    assert await stage.spoken_to(after, both=True) == expected


@pytest.mark.long
async def test_certificates_change_for_who_came_later_too(a_stage: MakeStage) -> None:
    """What is shown to members, and whom of them to believe."""
    kinds = {"verified": (Kind(VERIFIED, HTTPS),), "verified by no check": (Kind(VERIFIED),)}
    stage = a_stage(kinds)
    of_all = [turns[0] for turns in kinds.values()]
    await stage.world.apply(stage.tree(of_all, both=False), stage.secrets)
    wanted = stage.tree(of_all, both=True)
    assert (await stage.world.apply(wanted, stage.secrets)).action == "runtime"
    before = await stage.spoken_to(of_all, both=True)

    shown = replace(stage.secrets, certificates={OWN: stage.authority.issue("another amphora")})
    assert (await stage.world.apply(wanted, shown)).action == "runtime"
    for first, later in (await stage.spoken_to(of_all, both=True)).values():
        assert first == later
        assert "another amphora" in str(later)
        assert first not in before["verified"]

    stranger = TestAuthority("members")
    believed = replace(
        shown,
        authorities={AUTHORITY: Authorities(certificates=(stranger.pem,))},
        revocations={REVOKED: Revocations(lists=(stranger.revoke(),))},
    )
    assert (await stage.world.apply(wanted, believed)).action == "runtime"
    await until(lambda: {x for x, *_ in stage.statuses().values()} == {"DOWN", "no check"}, within=30)
    assert {await asyncio.to_thread(_ask, port) for port in stage.ports for _ in range(4)} == {503}

"""Cases of what goes with what: each listener protocol over each pool protocol, each pool protocol watched by each monitor."""

from __future__ import annotations

from typing import Any

from tests.acceptance.traffic.case import Fields, Group, Secret, TlsServer
from tests.acceptance.traffic.rows import OVER, WATCHED, over, watched
from tests.acceptance.traffic.stage import PortOf, Stage

PAIRS = Group("pairs")

_VERSIONS = {"PROXY": "1", "PROXYV2": "2"}
_SITE = {"protocol": "TERMINATED_HTTPS", "default_tls_container_ref": Secret("site")}


async def the_member_answers(stage: Stage) -> None:
    """And knows who asks where it is told."""
    listener, pool = stage.expect
    if listener == "UDP":
        assert await stage.datagram() == "one"
        return
    answered = (await stage.caller().ask()).body if listener == "TERMINATED_HTTPS" else await stage.ask()
    assert answered == "one"
    (member,) = stage.servers
    begins = [preamble.split(" ")[:5] for preamble in member.preambles]
    told = [[_VERSIONS[pool], "PROXY", "TCP4", "127.0.0.1", stage.address]] if pool in _VERSIONS else []
    assert begins == told


for _listener, _pool in OVER:
    PAIRS.case(
        over(_listener, _pool),
        name=f"{_listener} over {_pool}",
        listener=_SITE if _listener == "TERMINATED_HTTPS" else {"protocol": _listener},
        pool={"protocol": _pool},
        servers="udp" if _listener == "UDP" else "http",
        expect=(_listener, _pool),
    )(the_member_answers)


async def the_dead_is_told_from_the_living(stage: Stage) -> None:
    await stage.statuses_become(**stage.expect)


_LISTENERS = {"TCP": "TCP", "HTTPS": "HTTPS", "UDP": "UDP"}
"""Over the others an HTTP one."""

_NOBODY = {"PING": {"address": "255.255.255.255", "protocol_port": 9}}
"""Who is dead: a port where nobody listens, or, for ping, whom it refuses to look at."""


def _watched(pool: str, monitor: str) -> None:
    living: Any = "http"
    if monitor in ("HTTPS", "TLS-HELLO"):
        living = TlsServer("accept-proxy" if pool in _VERSIONS else "")
    members: list[Fields] = [{}, _NOBODY.get(monitor, {"protocol_port": 9})]
    servers, expect = [living, "http"], {"one": "ONLINE", "two": "ERROR"}
    if pool == "UDP":
        servers = ["udp", "udp"]
        if monitor != "UDP-CONNECT":  # something beside tells of it, over TCP
            members = [{"monitor_port": PortOf(2)}, {}, {}]
            servers, expect = [*servers, "http"], {**expect, "three": "ONLINE"}
    PAIRS.case(
        watched(pool, monitor),
        name=f"{pool} watched by {monitor}",
        listener={"protocol": _LISTENERS.get(pool, "HTTP")},
        pool={"protocol": pool},
        members=members,
        servers=servers,
        monitor={"type": monitor, "delay": 3 if monitor == "UDP-CONNECT" else 1},
        expect=expect,
        long=True,
    )(the_dead_is_told_from_the_living)


for _pool, _monitor in WATCHED:
    _watched(_pool, _monitor)

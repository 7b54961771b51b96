"""TLS from the amphora to members: how members are spoken to, which are believed, and how they are checked."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from frontinus.model.certificates import Authorities, Revocations
from frontinus.model.enums import HealthMonitorType, ListenerProtocol, PoolProtocol
from frontinus.testing.certificates import TestAuthority

from tests.integration.drivers.tls_world import AUTHORITY, REVOKED, TlsSite, tls_member
from tests.integration.drivers.world import MEMBERS, VIP, World, until
from tests.unit.drivers.trees import a_member, a_monitor

OWN = "local:own"
DEFAULTS: dict[str, Any] = {
    "tls_enabled": True,
    "tls_versions": ("TLSv1.2", "TLSv1.3"),
    "alpn_protocols": ("h2", "http/1.1", "http/1.0"),
}


class Talk:
    """How a member was spoken to, in its own words."""

    def __init__(self, body: str) -> None:
        self.said = dict(word.partition("=")[::2] for word in body.split(" "))

    def __getattr__(self, name: str) -> str:
        return self.said[name]


async def ask_in_clear(port: int) -> str:
    """The body of the answer."""
    reader, writer = await asyncio.open_connection(VIP, port)
    writer.write(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return body.decode() if head.startswith(b"HTTP/1.1 200") else head[9:12].decode()


@pytest.fixture
def authority() -> TestAuthority:
    return TestAuthority("members")


def a_site(world: World, port: int) -> TlsSite:
    return TlsSite(world, port)


@pytest.mark.parametrize(
    "fields, bind, expected",
    [
        pytest.param({}, "alpn h2,http/1.1", {"version": "TLSv1.3", "alpn": "h2", "http": "2.0"}, id="http2"),
        pytest.param({"alpn_protocols": ("http/1.1",)}, "alpn h2,http/1.1", {"http": "1.1"}, id="http/1.1"),
        pytest.param({"alpn_protocols": None}, "", {"http": "1.1", "alpn": ""}, id="no alpn"),
        pytest.param({"tls_versions": ("TLSv1.2",)}, "", {"version": "TLSv1.2"}, id="TLS 1.2"),
        pytest.param({"tls_versions": None}, "", {"version": "TLSv1.3"}, id="versions left open"),
        pytest.param(
            {"tls_versions": ("TLSv1.1",)},
            "ssl-min-ver TLSv1.0 ciphers ALL:@SECLEVEL=0",
            {"version": "TLSv1.1"},
            id="TLS 1.1",
        ),
        pytest.param(
            {"tls_ciphers": "TLS_CHACHA20_POLY1305_SHA256"},
            "",
            {"cipher": "TLS_CHACHA20_POLY1305_SHA256"},
            id="suite of TLS 1.3",
        ),
        pytest.param(
            {"tls_ciphers": "ECDHE-ECDSA-AES256-GCM-SHA384", "tls_versions": ("TLSv1.2",)},
            "",
            {"cipher": "ECDHE-ECDSA-AES256-GCM-SHA384"},
            id="cipher of TLS 1.2",
        ),
    ],
)
async def test_members_are_spoken_to_as_asked(
    world: World, tmp_path: Path, authority: TestAuthority, fields: dict[str, Any], bind: str, expected: dict[str, str]
) -> None:
    with tls_member(tmp_path, authority.issue("whoever"), bind) as port:
        site = a_site(world, port)
        await site.shows(pool={**DEFAULTS, **fields})
        talk = Talk((await site.caller().ask()).body)
        assert {key: talk.said[key] for key in expected} == expected
        # The name that the client asked for is asked of the member.
        assert talk.sni == "www.example.org"


async def test_a_member_of_another_version_is_not_spoken_to(
    world: World, tmp_path: Path, authority: TestAuthority
) -> None:
    with tls_member(tmp_path, authority.issue("whoever"), "ssl-max-ver TLSv1.2") as port:
        site = a_site(world, port)
        await site.shows(pool={**DEFAULTS, "tls_versions": ("TLSv1.3",)})
        assert (await site.caller().ask()).answer[:12] == b"HTTP/1.1 503"


@pytest.mark.parametrize("protocol", [ListenerProtocol.HTTP, ListenerProtocol.TCP])
async def test_members_behind_a_listener_in_clear(
    world: World, tmp_path: Path, authority: TestAuthority, protocol: ListenerProtocol
) -> None:
    with tls_member(tmp_path, authority.issue("whoever"), "alpn h2,http/1.1") as port:
        site = a_site(world, port)
        pool_protocol = PoolProtocol.TCP if protocol is ListenerProtocol.TCP else PoolProtocol.HTTP
        listener = {"protocol": protocol, "default_tls_container_ref": None}
        await site.shows(listener=listener, pool={**DEFAULTS, "protocol": pool_protocol})
        talk = Talk(await ask_in_clear(site.port))
        assert (talk.version, talk.sni) == ("TLSv1.3", "")
        assert talk.http == ("2.0" if protocol is ListenerProtocol.HTTP else "1.1")


@pytest.mark.parametrize(
    "names, is_ours, is_revoked, served",
    [
        pytest.param(("www.example.org",), True, False, True, id="signed and named right"),
        pytest.param(("other.example.org",), True, False, False, id="of another name"),
        pytest.param(("www.example.org",), False, False, False, id="signed by a stranger"),
        pytest.param(("www.example.org",), True, True, False, id="revoked"),
    ],
)
async def test_members_are_verified(
    world: World,
    tmp_path: Path,
    authority: TestAuthority,
    names: tuple[str, ...],
    is_ours: bool,
    is_revoked: bool,
    served: bool,
) -> None:
    certificate = (authority if is_ours else TestAuthority("strangers")).issue(*names)
    with tls_member(tmp_path, certificate) as port:
        site = a_site(world, port)
        site.authorities[AUTHORITY] = Authorities(certificates=(authority.pem,))
        revoked = (certificate,) if is_revoked else ()
        site.revocations[REVOKED] = Revocations(lists=(authority.revoke(*revoked),))
        fields = {**DEFAULTS, "ca_tls_container_ref": AUTHORITY, "crl_container_ref": REVOKED}
        await site.shows(pool=fields)
        assert (await site.caller().ask()).answer[:12] == (b"HTTP/1.1 200" if served else b"HTTP/1.1 503")
        # Without an authority any certificate will do.
        await site.shows(pool=DEFAULTS)
        assert (await site.caller().ask()).answer[:12] == b"HTTP/1.1 200"


async def test_members_are_shown_our_certificate(world: World, tmp_path: Path, authority: TestAuthority) -> None:
    clients = TestAuthority("clients")
    (tmp_path / "clients.pem").write_bytes(clients.pem)
    bind = f"ca-file {tmp_path}/clients.pem verify required"
    with tls_member(tmp_path, authority.issue("whoever"), bind) as port:
        site = a_site(world, port)
        site.certificates[OWN] = clients.issue("the amphora")
        await site.shows(pool=DEFAULTS)
        assert (await site.caller().ask()).answer[:9] == b"HTTP/1.1 "
        assert "client=" not in (await site.caller().ask()).body
        await site.shows(pool={**DEFAULTS, "tls_container_ref": OWN})
        assert (await site.caller().ask()).body.endswith("client=the amphora")


async def test_members_of_a_tls_pool_come_and_go_without_a_reload(
    world: World, tmp_path: Path, authority: TestAuthority
) -> None:
    with tls_member(tmp_path, authority.issue("www.example.org")) as port:
        site = a_site(world, port)
        site.authorities[AUTHORITY] = Authorities(certificates=(authority.pem,))
        site.certificates[OWN] = authority.issue("the amphora")
        fields = {
            **DEFAULTS,
            "alpn_protocols": ("http/1.1",),
            "ca_tls_container_ref": AUTHORITY,
            "tls_container_ref": OWN,
        }
        monitor = a_monitor(type=HealthMonitorType.HTTPS, url_path="/", domain_name="www.example.org")
        actions = []
        for count in (1, 3, 2, 1, 0, 1):
            site.members = count
            actions.append((await site.shows(pool=fields, monitors=[monitor])).action)
            if count:
                assert (await site.caller().ask()).answer[:12] == b"HTTP/1.1 200"
        # Only the first of all brings files with it that HAProxy has not read yet.
        assert actions == ["start", "runtime", "runtime", "runtime", "runtime", "reload"]


async def states(site: TlsSite) -> dict[str, str]:
    """Name of each server -> what HAProxy says of it."""
    rows = site.world.runtime("show stat").splitlines()
    head = rows[0].removeprefix("# ").split(",")
    found = [dict(zip(head, row.split(","), strict=False)) for row in rows[1:] if row]
    return {row["svname"]: row["status"] for row in found if row["svname"].startswith("0000")}


@pytest.mark.parametrize("tls_enabled", [True, False], ids=["TLS pool", "pass-through pool"])
@pytest.mark.parametrize("type_", [HealthMonitorType.HTTPS, HealthMonitorType.TLS_HELLO])
async def test_monitors_that_speak_tls(
    world: World, tmp_path: Path, authority: TestAuthority, type_: HealthMonitorType, tls_enabled: bool
) -> None:
    """A member that speaks TLS 1.3 only is up, and one that speaks in clear is down."""
    in_clear = await world.member("in clear")
    # strict-sni: a member that has no certificate for whoever does not say what he wants.
    strict = "strict-sni" if type_ is HealthMonitorType.HTTPS else ""
    with tls_member(tmp_path, authority.issue("health.example.org"), f"ssl-min-ver TLSv1.3 {strict}") as port:
        site = a_site(world, port)
        fields: dict[str, Any] = {"type": type_, "delay": 1, "max_retries": 1, "max_retries_down": 1}
        if type_ is HealthMonitorType.HTTPS:
            fields |= {"url_path": "/", "domain_name": "health.example.org", "http_version": 1.1}
        pool: dict[str, Any] = DEFAULTS if tls_enabled else {"protocol": PoolProtocol.HTTPS}
        listener: dict[str, Any] = (
            {} if tls_enabled else {"protocol": ListenerProtocol.HTTPS, "default_tls_container_ref": None}
        )
        tree = site.tree(listener=listener, pool=pool, monitors=[a_monitor(**fields)])
        other = a_member(31, address=MEMBERS, port=in_clear.port)
        later = (a_member(32, address=MEMBERS, port=port), a_member(33, address=MEMBERS, port=in_clear.port))
        first = (*tree.members, other)
        for members in (first, (*first, *later)):  # there at the start, and come while it runs
            await world.apply(replace(tree, members=members), site.secrets)
            expected = {str(x.id): "UP" if x.protocol_port == port else "DOWN" for x in members}

            async def told(expected: dict[str, str] = expected) -> bool:
                return await states(site) == expected

            await until(told)


@pytest.mark.parametrize(
    "offered, spoken",
    [
        pytest.param(("h2", "http/1.1", "http/1.0"), "h2,http/1.1", id="both"),
        pytest.param(("h2", "http/1.1"), "http/1.1", id="HTTP/1 alone"),
        pytest.param(("h2",), "h2", id="HTTP/2 alone"),
    ],
)
@pytest.mark.parametrize("type_", [HealthMonitorType.HTTPS, HealthMonitorType.HTTP])
async def test_http_monitors_of_members_that_speak_http2(
    world: World,
    tmp_path: Path,
    authority: TestAuthority,
    type_: HealthMonitorType,
    offered: tuple[str, ...],
    spoken: str,
) -> None:
    with tls_member(tmp_path, authority.issue("whoever"), f"alpn {spoken}") as port:
        site = a_site(world, port)
        monitor = a_monitor(type=type_, url_path="/", delay=1, max_retries=1, max_retries_down=1)
        await site.shows(pool={**DEFAULTS, "alpn_protocols": offered}, monitors=[monitor])
        await until(lambda: ",L7OK,200," in world.runtime("show stat"))
        # A member that comes later is checked as one that was there.
        site.members = 2
        await site.shows(pool={**DEFAULTS, "alpn_protocols": offered}, monitors=[monitor])
        await until(lambda: world.runtime("show stat").count(",L7OK,200,") == 2)


async def test_https_monitors_look_at_the_answer(world: World, tmp_path: Path, authority: TestAuthority) -> None:
    with tls_member(tmp_path, authority.issue("whoever")) as port:
        site = a_site(world, port)
        monitor = a_monitor(type=HealthMonitorType.HTTPS, expected_codes="204", max_retries_down=1)
        await site.shows(pool=DEFAULTS, monitors=[monitor])

        async def is_down() -> bool:
            return list((await states(site)).values()) == ["DOWN"]

        await until(is_down)
        assert (await site.caller().ask()).answer[:12] == b"HTTP/1.1 503"

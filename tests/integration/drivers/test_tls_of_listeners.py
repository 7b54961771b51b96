"""TLS that ends at the amphora: every field in real handshakes."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
from typing import Any

import pytest

from frontinus.model.certificates import Authorities, Certificate, Revocations
from frontinus.model.compatibility import TLS_CIPHERS_DEFAULT
from frontinus.model.enums import ClientAuthentication, L7PolicyAction, L7RuleCompareType, L7RuleType
from frontinus.testing.certificates import TestAuthority

from tests.integration.drivers.tls_world import AUTHORITY, CERTIFICATE, REVOKED, SNI, TlsSite, der
from tests.integration.drivers.world import VIP, World
from tests.unit.drivers.trees import a_policy, a_rule

V = ssl.TLSVersion
VERSIONS = {"TLSv1": V.TLSv1, "TLSv1.1": V.TLSv1_1, "TLSv1.2": V.TLSv1_2, "TLSv1.3": V.TLSv1_3}

pytestmark = pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")


@pytest.fixture
async def site(world: World) -> TlsSite:
    return TlsSite(world, (await world.member("one")).port)


async def test_tls_ends_here_and_the_chain_is_sent(site: TlsSite) -> None:
    """A client that knows only the root finds its way by the intermediate."""
    issuer = TestAuthority("issuer", parent=site.authority)
    site.certificates[CERTIFICATE] = issuer.issue("www.example.org")
    assert (await site.shows()).action == "start"
    assert (await site.caller(trusts=site.authority).ask()).body == "one"
    assert await site.caller(trusts=site.authority, name="other.example.org").is_refused()


async def test_sni_picks_the_certificate(site: TlsSite) -> None:
    site.certificates[SNI] = site.authority.issue("shop.example.org")
    site.certificates["local:wild"] = site.authority.issue("*.wild.example.org", "*.example.net")
    await site.shows(listener={"sni_container_refs": (SNI, "local:wild")})
    for name, expected in [
        ("www.example.org", CERTIFICATE),
        ("shop.example.org", SNI),
        ("a.wild.example.org", "local:wild"),
        ("b.example.net", "local:wild"),
        ("a.b.example.net", CERTIFICATE),
        ("unknown.example.com", CERTIFICATE),
        (None, CERTIFICATE),
    ]:
        heard = await site.caller(name=name).ask()
        found = next(ref for ref, each in site.certificates.items() if der(each) == heard.certificate)
        assert (name, found) == (name, expected)


async def test_sni_certificates_alone_are_enough(site: TlsSite) -> None:
    site.certificates[SNI] = site.authority.issue("shop.example.org")
    await site.shows(listener={"default_tls_container_ref": None, "sni_container_refs": (SNI,)})
    assert (await site.caller(name="shop.example.org", trusts=site.authority).ask()).body == "one"


@pytest.mark.parametrize(
    "offered",
    [
        ("TLSv1",),
        ("TLSv1.1",),
        ("TLSv1.2",),
        ("TLSv1.3",),
        ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"),
        ("TLSv1.1", "TLSv1.2"),
        ("TLSv1.3", "TLSv1.2"),
    ],
    ids="+".join,
)
@pytest.mark.parametrize("ciphers", [None, TLS_CIPHERS_DEFAULT], ids=["none", "default"])
async def test_each_version_on_and_off(site: TlsSite, offered: tuple[str, ...], ciphers: str | None) -> None:
    await site.shows(listener={"tls_versions": offered, "tls_ciphers": ciphers})
    for name, version in VERSIONS.items():
        caller = site.caller(oldest=version, newest=version)
        got = None if await caller.is_refused() else (await caller.ask()).version
        assert (name, got) == (name, name if name in offered else None)


@pytest.mark.parametrize(
    "ciphers, version, expected",
    [
        ("ECDHE-ECDSA-AES128-GCM-SHA256", V.TLSv1_2, "ECDHE-ECDSA-AES128-GCM-SHA256"),
        ("ECDHE-ECDSA-AES256-GCM-SHA384", V.TLSv1_2, "ECDHE-ECDSA-AES256-GCM-SHA384"),
        ("ECDHE-ECDSA-CHACHA20-POLY1305", V.TLSv1_2, "ECDHE-ECDSA-CHACHA20-POLY1305"),
        ("TLS_AES_128_GCM_SHA256:ECDHE-ECDSA-AES256-GCM-SHA384", V.TLSv1_2, "ECDHE-ECDSA-AES256-GCM-SHA384"),
        ("TLS_AES_128_GCM_SHA256:ECDHE-ECDSA-AES256-GCM-SHA384", V.TLSv1_3, "TLS_AES_128_GCM_SHA256"),
        ("TLS_CHACHA20_POLY1305_SHA256", V.TLSv1_3, "TLS_CHACHA20_POLY1305_SHA256"),
        ("TLS_AES_256_GCM_SHA384", V.TLSv1_2, None),  # names nothing that TLS 1.2 could use
        ("ECDHE-RSA-AES128-GCM-SHA256", V.TLSv1_2, None),  # needs another kind of key
        ("HIGH:!AES128:!SHA384:!AES256", V.TLSv1_2, "ECDHE-ECDSA-CHACHA20-POLY1305"),
    ],
)
async def test_ciphers(site: TlsSite, ciphers: str, version: V, expected: str | None) -> None:
    await site.shows(listener={"tls_ciphers": ciphers})
    caller = site.caller(oldest=version, newest=version)
    got = None if await caller.is_refused() else (await caller.ask()).cipher
    assert got == expected


@pytest.mark.parametrize(
    "offered, asked, expected",
    [
        (("h2", "http/1.1", "http/1.0"), ("h2", "http/1.1"), "h2"),
        (("h2", "http/1.1"), ("http/1.1",), "http/1.1"),
        (("http/1.1",), ("h2", "http/1.1"), "http/1.1"),
        (("http/1.1",), ("h2",), None),
        (None, ("h2", "http/1.1"), None),
    ],
)
async def test_alpn(site: TlsSite, offered: tuple[str, ...] | None, asked: tuple[str, ...], expected: str) -> None:
    await site.shows(listener={"alpn_protocols": offered})

    def agreed() -> str | None:

        context = site.caller(alpn=asked).context()
        with context.wrap_socket(socket.create_connection((VIP, site.port)), server_hostname="x.org") as connection:
            return connection.selected_alpn_protocol()

    assert await asyncio.to_thread(agreed) == expected


@pytest.mark.parametrize("wish, version", [("--http2", "2"), ("--http1.1", "1.1")])
async def test_http2_and_http1_are_spoken(site: TlsSite, wish: str, version: str) -> None:
    await site.shows(listener={"alpn_protocols": ("h2", "http/1.1"), "hsts_max_age": 60})
    assert await curl(VIP, site.port, wish, "-w", " %{http_version}") == f"one {version}"


async def curl(address: str, port: int, *words: str) -> str:
    program = shutil.which("curl")
    assert program is not None, "these tests need curl"
    resolve = f"www.example.org:{port}:{address}"
    process = await asyncio.create_subprocess_exec(
        program,
        *("-sk", "--resolve", resolve, *words, f"https://www.example.org:{port}/"),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    return output.decode()


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({}, None),
        ({"hsts_max_age": 0}, "max-age=0"),
        ({"hsts_max_age": 31_536_000}, "max-age=31536000"),
        ({"hsts_max_age": 10, "hsts_include_subdomains": True}, "max-age=10; includeSubDomains"),
        ({"hsts_max_age": 10, "hsts_preload": True}, "max-age=10; preload"),
        (
            {"hsts_max_age": 10, "hsts_include_subdomains": True, "hsts_preload": True},
            "max-age=10; includeSubDomains; preload",
        ),
    ],
)
async def test_hsts(site: TlsSite, fields: dict[str, Any], expected: str | None) -> None:
    await site.shows(listener=fields)
    assert (await site.caller().ask()).headers.get("strict-transport-security") == expected


async def test_hsts_is_on_answers_of_our_own_too(site: TlsSite) -> None:
    await site.shows(listener={"hsts_max_age": 10}, policies=[a_policy()], rules=[a_rule(value="/no")])
    refused = await site.caller().ask("/no")
    assert (refused.answer[:12], refused.headers["strict-transport-security"]) == (b"HTTP/1.1 403", "max-age=10")


def client_rules(site: TlsSite) -> tuple[Certificate, Certificate, Certificate]:
    """A client that may come in, one that was thrown out, and a stranger."""
    clients = TestAuthority("clients")
    good, bad, stranger = clients.issue("good"), clients.issue("bad"), TestAuthority("strangers").issue("good")
    site.authorities[AUTHORITY] = Authorities(certificates=(clients.pem,))
    site.revocations[REVOKED] = Revocations(lists=(clients.revoke(bad),))
    return good, bad, stranger


@pytest.mark.parametrize("crl", [None, REVOKED], ids=["no list", "list"])
@pytest.mark.parametrize("authentication", list(ClientAuthentication))
async def test_client_certificates(site: TlsSite, authentication: ClientAuthentication, crl: str | None) -> None:
    good, bad, stranger = client_rules(site)
    fields = {"client_authentication": authentication, "client_ca_tls_container_ref": AUTHORITY}
    await site.shows(listener={**fields, "client_crl_container_ref": crl})
    is_open = authentication is ClientAuthentication.NONE
    for own, welcome in [
        (None, authentication is not ClientAuthentication.MANDATORY),
        (good, True),
        (bad, is_open or crl is None),
        (stranger, is_open),
    ]:
        for version in (V.TLSv1_2, V.TLSv1_3):
            assert await site.caller(own=own, oldest=version, newest=version).is_refused() is not welcome


async def test_client_certificates_are_told_to_members(site: TlsSite) -> None:
    good, _, _ = client_rules(site)
    headers = ["X-SSL-Client-Verify", "X-SSL-Client-Has-Cert", "X-SSL-Client-DN", "X-SSL-Client-CN", "X-SSL-Issuer"]
    headers += ["X-SSL-Client-SHA1", "X-SSL-Client-Not-Before", "X-SSL-Client-Not-After", "X-Forwarded-Proto"]
    fields = {
        "client_authentication": ClientAuthentication.OPTIONAL,
        "client_ca_tls_container_ref": AUTHORITY,
        "insert_headers": dict.fromkeys(headers, "true"),
    }
    await site.shows(listener=fields)
    await site.caller(own=good).ask()
    await site.caller().ask()
    with_one, without = (
        dict(line.split(": ", 1) for line in head.decode().lower().strip().split("\r\n")[1:] if ": " in line)
        for head in site.world.members["one"].requests[-2:]
    )
    assert with_one["x-ssl-client-verify"] == "0"
    assert with_one["x-ssl-client-has-cert"] == "1"
    assert with_one["x-ssl-client-dn"] == "/cn=good"
    assert with_one["x-ssl-client-cn"] == "good"
    assert with_one["x-ssl-issuer"] == "/cn=clients"
    assert len(with_one["x-ssl-client-sha1"]) == 40
    assert with_one["x-ssl-client-not-after"].endswith("z")
    assert with_one["x-forwarded-proto"] == "https"
    assert without["x-ssl-client-has-cert"] == "0"


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param({"type": L7RuleType.SSL_CONN_HAS_CERT, "value": "True"}, id="has a certificate"),
        pytest.param({"type": L7RuleType.SSL_VERIFY_RESULT, "value": "0", "key": None}, id="verified"),
        pytest.param({"type": L7RuleType.SSL_DN_FIELD, "key": "CN", "value": "good"}, id="by name"),
    ],
)
async def test_rules_on_client_certificates(site: TlsSite, rule: dict[str, Any]) -> None:
    good, bad, _ = client_rules(site)
    fields = {
        "client_authentication": ClientAuthentication.OPTIONAL,
        "client_ca_tls_container_ref": AUTHORITY,
    }
    policy = a_policy(action=L7PolicyAction.REJECT)
    await site.shows(
        listener=fields, policies=[policy], rules=[a_rule(compare_type=L7RuleCompareType.EQUAL_TO, **rule)]
    )
    assert (await site.caller(own=good).ask()).answer[:12] == b"HTTP/1.1 403"
    if rule["type"] is L7RuleType.SSL_DN_FIELD:
        assert (await site.caller(own=bad).ask()).body == "one"
    if rule["type"] is L7RuleType.SSL_CONN_HAS_CERT:
        assert (await site.caller().ask()).body == "one"

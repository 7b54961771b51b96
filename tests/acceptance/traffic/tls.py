"""Cases of TLS that ends at the amphora: certificates, versions, ciphers, ALPN, HSTS, client certificates."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

from tests.acceptance.traffic.case import Decorator, Fields, Group, Secret
from tests.acceptance.traffic.stage import Stage, headers_of
from tests.integration.drivers.test_tls_of_listeners import VERSIONS, curl
from tests.integration.drivers.tls_world import der
from tests.integration.drivers.world import CLIENTS

TLS = Group("tls")

V = ssl.TLSVersion
SITE: dict[str, Any] = {"protocol": "TERMINATED_HTTPS", "default_tls_container_ref": Secret("site")}


def case(*rows: str, listener: dict[str, Any] | None = None, **more: Any) -> Decorator:
    """Of a listener that has the site's certificate."""
    return TLS.case(*rows, listener={**SITE, **(listener or {})}, **more)


@case("listener.protocol[TERMINATED_HTTPS]", "listener.default_tls_container_ref")
async def tls_ends_here(stage: Stage) -> None:
    heard = await stage.caller(trusts=stage.secrets.authority).ask()
    assert (heard.body, heard.version) == ("one", "TLSv1.3")
    assert heard.certificate == der(stage.secrets.certificates["site"])
    assert await stage.caller(trusts=stage.secrets.authority, name="other.example.org").is_refused()
    await stage.change_listener(default_tls_container_ref=Secret("shop"))
    assert (await stage.caller(trusts=stage.secrets.authority, name="shop.example.org").ask()).body == "one"


@case("listener.sni_container_refs", listener={"sni_container_refs": [Secret("shop")]})
async def the_name_picks_the_certificate(stage: Stage) -> None:
    for name, expected in [("shop.example.org", "shop"), ("www.example.org", "site"), (None, "site")]:
        heard = await stage.caller(name=name).ask()
        assert heard.certificate == der(stage.secrets.certificates[expected]), name


async def only_these_versions_are_spoken(stage: Stage) -> None:
    for name, version in VERSIONS.items():
        caller = stage.caller(oldest=version, newest=version)
        got = None if await caller.is_refused() else (await caller.ask()).version
        assert (name, got) == (name, name if name in stage.expect else None)


for _versions in (["TLSv1"], ["TLSv1.1"], ["TLSv1.2"], ["TLSv1.3"], ["TLSv1.2", "TLSv1.3"]):
    case(
        *(f"listener.tls_versions[{version}]" for version in _versions),
        listener={"tls_versions": _versions},
        expect=_versions,
        name="+".join(_versions),
    )(only_these_versions_are_spoken)


@case(
    "listener.tls_ciphers",
    listener={"tls_ciphers": "ECDHE-ECDSA-AES256-GCM-SHA384"},
    expect=(V.TLSv1_2, "ECDHE-ECDSA-AES256-GCM-SHA384"),
    name="TLS 1.2",
)
@case(
    "listener.tls_ciphers",
    listener={"tls_ciphers": "TLS_CHACHA20_POLY1305_SHA256"},
    expect=(V.TLSv1_3, "TLS_CHACHA20_POLY1305_SHA256"),
    name="TLS 1.3",
)
async def this_cipher_is_used(stage: Stage) -> None:
    version, cipher = stage.expect
    assert (await stage.caller(oldest=version, newest=version).ask()).cipher == cipher


@case("listener.tls_ciphers", listener={"tls_ciphers": "ECDHE-ECDSA-AES256-GCM-SHA384", "tls_versions": ["TLSv1.2"]})
async def a_cipher_that_is_not_offered_is_not_used(stage: Stage) -> None:
    assert await stage.caller(newest=V.TLSv1_2, ciphers="ECDHE-ECDSA-AES128-GCM-SHA256").is_refused()


async def the_protocol_is_agreed_upon(stage: Stage) -> None:
    asked, expected = stage.expect

    def agreed() -> str | None:
        with (
            socket.create_connection((stage.address, stage.port)) as plain,
            stage.caller(alpn=asked).context().wrap_socket(plain, server_hostname="www.example.org") as connection,
        ):
            return connection.selected_alpn_protocol()

    assert await asyncio.to_thread(agreed) == expected


for _offered, _asked, _agreed in [
    (["h2", "http/1.1"], ("h2", "http/1.1"), "h2"),
    (["http/1.1"], ("h2", "http/1.1"), "http/1.1"),
    (["http/1.0"], ("h2", "http/1.1", "http/1.0"), "http/1.0"),
    (["http/1.1"], ("h2",), None),
]:
    case(
        *(f"listener.alpn_protocols[{protocol}]" for protocol in _offered),
        listener={"alpn_protocols": _offered},
        expect=(_asked, _agreed),
        name=f"{'+'.join(_offered)} for {'+'.join(_asked)}",
    )(the_protocol_is_agreed_upon)


@case("listener.alpn_protocols[h2]", listener={"alpn_protocols": ["h2", "http/1.1"]})
async def http_2_is_spoken(stage: Stage) -> None:
    assert await curl(stage.address, stage.port, "--http2", "-w", " %{http_version}") == "one 2"
    assert await curl(stage.address, stage.port, "--http1.1", "-w", " %{http_version}") == "one 1.1"


async def strict_transport_is_asked_for(stage: Stage) -> None:
    assert (await stage.caller().ask()).headers.get("strict-transport-security") == stage.expect


_HSTS: list[tuple[Fields, str | None]] = [
    (Fields(), None),
    ({"hsts_max_age": 10}, "max-age=10"),
    ({"hsts_max_age": 10, "hsts_include_subdomains": True, "hsts_preload": False}, "max-age=10; includeSubDomains"),
    ({"hsts_max_age": 10, "hsts_preload": True, "hsts_include_subdomains": False}, "max-age=10; preload"),
]

for _fields, _told in _HSTS:
    case(
        *(
            f"listener.{key}" + (f"[{str(value).lower()}]" if isinstance(value, bool) else "")
            for key, value in _fields.items()
        ),
        listener=_fields,
        expect=_told,
        name=str(_told),
    )(strict_transport_is_asked_for)


# -------------------------------------------------------------- client certificates


_ALL = (None, "client", "revoked client", "strange client")


async def these_clients_get_in(stage: Stage) -> None:
    certificates = stage.secrets.certificates
    own = {name: None if name is None else certificates[name] for name in _ALL}
    for version in (V.TLSv1_2, V.TLSv1_3):
        refused = [await stage.caller(own=each, oldest=version, newest=version).is_refused() for each in own.values()]
        assert {name for name, is_out in zip(own, refused, strict=True) if not is_out} == stage.expect


for _wanted, _list, _welcome in [
    ("NONE", False, set(_ALL)),
    ("OPTIONAL", False, {None, "client", "revoked client"}),
    ("MANDATORY", False, {"client", "revoked client"}),
    ("OPTIONAL", True, {None, "client"}),
    ("MANDATORY", True, {"client"}),
]:
    case(
        f"listener.client_authentication[{_wanted}]",
        "listener.client_ca_tls_container_ref",
        *(["listener.client_crl_container_ref"] if _list else []),
        listener={
            "client_authentication": _wanted,
            "client_ca_tls_container_ref": Secret("clients"),
            **({"client_crl_container_ref": Secret("revoked clients")} if _list else {}),
        },
        expect=_welcome,
        name=f"{_wanted} {'with' if _list else 'without'} list",
    )(these_clients_get_in)


_ADDRESS = CLIENTS.format(7)


async def the_member_is_told(stage: Stage) -> None:
    """With a client's certificate, and what is said without one."""
    name, with_one, without = stage.expect
    await stage.caller(own=stage.secrets.certificates["client"]).ask()
    await stage.caller().ask()
    first, second = (headers_of(each, name) for each in stage.servers[0].requests)
    expected = [with_one.format(port=stage.port)] if isinstance(with_one, str) else with_one
    if callable(expected):
        assert expected(first), first
    else:
        assert first == expected
    assert second == ([without.format(port=stage.port)] if isinstance(without, str) else first)


_SAME = object()
"""What is told of a client without a certificate is what is told of one with."""

for _name, _with, _without in [
    ("X-Forwarded-For", "127.0.0.1", _SAME),
    ("X-Forwarded-Port", "{port}", _SAME),
    ("X-Forwarded-Proto", "https", _SAME),
    ("X-Forwarded-IP", "127.0.0.1", _SAME),
    ("X-Client-IP", "127.0.0.1", _SAME),
    ("X-Real-IP", "127.0.0.1", _SAME),
    ("X-SSL-Client-Verify", "0", "0"),
    ("X-SSL-Client-Has-Cert", "1", "0"),
    ("X-SSL-Client-DN", "/CN=good", ""),
    ("X-SSL-Client-CN", "good", ""),
    ("X-SSL-Issuer", "/CN=clients", ""),
    ("X-SSL-Client-SHA1", lambda seen: len(seen[0]) == 40, ""),
    ("X-SSL-Client-Not-Before", lambda seen: seen[0].endswith("Z"), ""),
    ("X-SSL-Client-Not-After", lambda seen: seen[0].endswith("Z"), ""),
]:
    case(
        f"listener.insert_headers[TERMINATED_HTTPS {_name}]",
        listener={
            "insert_headers": {_name: "true"},
            "client_authentication": "OPTIONAL",
            "client_ca_tls_container_ref": Secret("clients"),
        },
        expect=(_name, _with, _without),
        name=_name,
    )(the_member_is_told)

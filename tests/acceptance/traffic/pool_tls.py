"""Cases of TLS from the amphora to members: how they are spoken to, and which are believed."""

from __future__ import annotations

from typing import Any

from tests.acceptance.traffic.case import Decorator, Group, Secret, TlsServer
from tests.acceptance.traffic.stage import Stage

POOL_TLS = Group("pool tls")

TERMINATED = {"protocol": "TERMINATED_HTTPS", "default_tls_container_ref": Secret("site")}


def case(*rows: str, pool: dict[str, Any] | None = None, servers: TlsServer, **more: Any) -> Decorator:
    """Of a pool that speaks TLS to its one member."""
    return POOL_TLS.case(*rows, pool={"tls_enabled": True, **(pool or {})}, servers=servers, **more)


async def the_member_is_spoken_to_so(stage: Stage) -> None:
    said = dict(word.partition("=")[::2] for word in (await stage.request()).body.split(" "))
    seen = {key: said.get(key, "") for key in stage.expect}
    assert seen == stage.expect


OLD = TlsServer("ssl-min-ver TLSv1.0 ciphers ALL:@SECLEVEL=0")
ANY = TlsServer("alpn h2,http/1.1,http/1.0")

for _version, _server in [("TLSv1", OLD), ("TLSv1.1", OLD), ("TLSv1.2", ANY), ("TLSv1.3", ANY)]:
    case(
        "pool.tls_enabled[true]",
        f"pool.tls_versions[{_version}]",
        pool={"tls_versions": [_version]},
        servers=_server,
        expect={"version": _version},
        name=_version,
    )(the_member_is_spoken_to_so)

for _offered, _expected in [
    (["h2", "http/1.1"], {"alpn": "h2", "http": "2.0"}),
    (["http/1.1"], {"alpn": "http/1.1", "http": "1.1"}),
    (["http/1.0"], {"alpn": "http/1.0", "http": "1.1"}),
]:
    case(
        *(f"pool.alpn_protocols[{protocol}]" for protocol in _offered),
        pool={"alpn_protocols": _offered},
        servers=ANY,
        expect=_expected,
        name="+".join(_offered),
    )(the_member_is_spoken_to_so)

for _ciphers, _versions in [
    ("ECDHE-ECDSA-AES256-GCM-SHA384", ["TLSv1.2"]),
    ("TLS_CHACHA20_POLY1305_SHA256", ["TLSv1.3"]),
]:
    case(
        "pool.tls_ciphers",
        pool={"tls_ciphers": _ciphers, "tls_versions": _versions},
        servers=ANY,
        expect={"cipher": _ciphers},
        name=_ciphers,
    )(the_member_is_spoken_to_so)


@case(
    "pool.tls_versions[TLSv1.3]",
    pool={"tls_versions": ["TLSv1.3"]},
    servers=TlsServer("ssl-max-ver TLSv1.2"),
    long=True,
)
async def a_member_of_another_version_is_not_spoken_to(stage: Stage) -> None:
    assert await stage.ask() == "503"


@case("pool.tls_enabled[false]", pool={"tls_enabled": False}, servers=TlsServer())
async def without_tls_the_member_is_spoken_to_in_clear(stage: Stage) -> None:
    assert await stage.ask() in ("502", "503", "400")
    await stage.change_pool(tls_enabled=True)
    assert (await stage.request()).status == 200


@case(
    "pool.tls_container_ref",
    servers=TlsServer("ca-file {directory}/clients.pem verify required"),
    pool={"tls_container_ref": Secret("amphora")},
)
async def our_certificate_is_shown(stage: Stage) -> None:
    assert (await stage.request()).body.endswith("client=the amphora")
    await stage.change_pool(tls_container_ref=None)
    assert "client=the amphora" not in (await stage.request()).body


for _certificate, _is_believed in [
    ("member", True),
    ("revoked member", False),
    ("strange member", False),
    ("other member", False),
]:

    @case(
        "pool.ca_tls_container_ref",
        "pool.crl_container_ref",
        listener=TERMINATED,
        pool={"ca_tls_container_ref": Secret("members"), "crl_container_ref": Secret("revoked members")},
        servers=TlsServer(certificate=_certificate),
        expect=_is_believed,
        name=_certificate,
        long=_certificate not in ("member", "revoked member"),
    )
    async def a_member_is_verified(stage: Stage) -> None:
        """Signed by whom it should, for the name that the client asked for, and not revoked."""
        assert (await stage.caller().ask()).answer[9:12] == (b"200" if stage.expect else b"503")
        await stage.change_pool(crl_container_ref=None)
        await stage.change_pool(ca_tls_container_ref=None)
        assert (await stage.caller().ask()).answer[9:12] == b"200", "without an authority any certificate will do"

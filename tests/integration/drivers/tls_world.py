"""What TLS is tried with: clients that say how they speak it, and members that say how they were spoken to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from frontinus.drivers.amphora.interface import Applied
from frontinus.model.certificates import Authorities, Certificate, Revocations, Secrets
from frontinus.model.enums import ListenerProtocol
from frontinus.model.tree import LoadBalancerTree
from frontinus.testing.certificates import TestAuthority, bundle

from tests.integration.drivers.balancer import running
from tests.integration.drivers.world import MEMBERS, VIP, World, free_port
from tests.unit.drivers.trees import a_listener, a_load_balancer, a_member, a_pool, a_tree

CERTIFICATE, SNI, AUTHORITY, REVOKED = "local:default", "local:sni", "local:authority", "local:revoked"


@dataclass
class Heard:
    """What a client got."""

    version: str = ""
    cipher: str = ""
    alpn: str | None = None
    certificate: bytes = b""
    answer: bytes = b""

    @property
    def headers(self) -> dict[str, str]:
        lines = self.answer.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    @property
    def body(self) -> str:
        return self.answer.partition(b"\r\n\r\n")[2].decode()


@dataclass
class Caller:
    """A client: what it offers, and whom it trusts (nobody: it does not look)."""

    port: int
    name: str | None = "www.example.org"
    oldest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    ciphers: str | None = None
    alpn: tuple[str, ...] = ()
    own: Certificate | None = None
    trusts: TestAuthority | None = None
    address: str = VIP

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = self.trusts is not None
        context.verify_mode = ssl.CERT_NONE if self.trusts is None else ssl.CERT_REQUIRED
        if self.trusts is not None:
            context.load_verify_locations(cadata=self.trusts.pem.decode())
        if self.oldest < ssl.TLSVersion.TLSv1_2:
            context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version, context.maximum_version = self.oldest, self.newest
        if self.ciphers is not None:
            context.set_ciphers(self.ciphers)
        if self.alpn:
            context.set_alpn_protocols(list(self.alpn))
        if self.own is not None:
            with tempfile.NamedTemporaryFile() as file:
                file.write(bundle(self.own))
                file.flush()
                context.load_cert_chain(file.name)
        return context

    async def ask(self, path: str = "/") -> Heard:
        """One request; raises OSError (ssl.SSLError is one) when the other side does not want it."""
        return await asyncio.to_thread(self._ask, path)

    def _ask(self, path: str) -> Heard:
        with (
            socket.create_connection((self.address, self.port), timeout=5) as plain,
            self.context().wrap_socket(plain, server_hostname=self.name) as connection,
        ):
            request = f"GET {path} HTTP/1.1\r\nHost: {self.name or VIP}\r\nConnection: close\r\n\r\n"
            connection.sendall(request.encode())
            answer = b""
            while part := connection.recv(65536):
                answer += part
            if not answer:
                raise ConnectionError("closed without an answer")
            return Heard(
                version=connection.version() or "",
                cipher=(connection.cipher() or ("",))[0],
                alpn=connection.selected_alpn_protocol(),
                certificate=connection.getpeercert(binary_form=True) or b"",
                answer=answer,
            )

    async def is_refused(self) -> bool:
        try:
            await self.ask()
        except OSError:
            return True
        return False


def der(certificate: Certificate) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificate.certificate.decode())


MEMBER_SAYS = (
    "version=%[ssl_fc_protocol] cipher=%[ssl_fc_cipher] sni=%[ssl_fc_sni] alpn=%[ssl_fc_alpn] http=%[req.ver] "
    "from=%[src_port] client=%[ssl_c_s_dn(cn)]"
)


@contextlib.contextmanager
def tls_member(directory: Path, certificate: Certificate, bind: str = "", name: str = "member") -> Iterator[int]:
    """A HAProxy plays a member that speaks TLS; it answers with how it was spoken to. `bind` are more words of its
    bind line. Yields its port."""
    with member_in_own_words(directory, certificate, f"ssl crt own.pem {bind}", name) as port:
        yield port


@contextlib.contextmanager
def member_in_own_words(directory: Path, certificate: Certificate, bind: str, name: str = "member") -> Iterator[int]:
    """The same in the words of its bind line, of TLS or not; its certificate is in own.pem."""
    home, port = directory / name, free_port(MEMBERS)
    home.mkdir()
    (home / "own.pem").write_bytes(bundle(certificate))
    lines = ["defaults", " mode http", " timeout client 30s", " timeout server 30s", " timeout connect 5s"]
    lines += ["frontend member", f" bind {MEMBERS}:{port} {bind}"]
    lines.append(f' http-request return status 200 content-type text/plain lf-string "{MEMBER_SAYS}"')
    with running(home, "\n".join([*lines, ""]), MEMBERS, port):
        yield port


@dataclass
class TlsSite:
    """A TERMINATED_HTTPS listener over one pool, and what is behind its references."""

    world: World
    member_port: int
    authority: TestAuthority = field(default_factory=TestAuthority)
    port: int = field(default_factory=free_port)
    certificates: dict[str, Certificate] = field(default_factory=dict)
    authorities: dict[str, Authorities] = field(default_factory=dict)
    revocations: dict[str, Revocations] = field(default_factory=dict)
    members: int = 1

    def __post_init__(self) -> None:
        self.certificates[CERTIFICATE] = self.authority.issue("www.example.org")

    @property
    def secrets(self) -> Secrets:
        return Secrets(
            certificates=dict(self.certificates), authorities=dict(self.authorities), revocations=dict(self.revocations)
        )

    def tree(
        self,
        *,
        listener: dict[str, Any] | None = None,
        pool: dict[str, Any] | None = None,
        member: dict[str, Any] | None = None,
        **more: Any,
    ) -> LoadBalancerTree:
        asked = {"protocol": ListenerProtocol.TERMINATED_HTTPS, "default_tls_container_ref": CERTIFICATE}
        return a_tree(
            a_load_balancer(VIP),
            listeners=[a_listener(port=self.port, **{**asked, **(listener or {})})],
            pools=[a_pool(**(pool or {}))],
            members=[
                a_member(30 + index, address=MEMBERS, port=self.member_port, **(member or {}))
                for index in range(self.members)
            ],
            **more,
        )

    async def shows(self, **fields: Any) -> Applied:
        return await self.world.apply(self.tree(**fields), self.secrets)

    def caller(self, **fields: Any) -> Caller:
        return Caller(self.port, **fields)

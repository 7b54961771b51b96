"""TLS with agents: what a controller shows, whom it believes, and what it was shown.

An amphora that is a machine of its own comes back from a restart with the certificate of its birth, which may have ended long
ago. It is given another one, if the one that it shows was ours for that very amphora; nothing else is sent to it before.
Design: docs/design/0033-restarted-machines.md. Next: client.py, which asks over what is made here."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from frontinus.drivers.amphora.agent.authority import Authority, Clock
from frontinus.drivers.amphora.agent.octavia_authority import TakenOver
from frontinus.model.ids import AmphoraId
from frontinus.model.tree import Amphora

IDENTITY_PATH = "/frontinus/1/identity"

HAS_EXPIRED = 10
"""OpenSSL's X509_V_ERR_CERT_HAS_EXPIRED: nothing else is wrong, since the time is judged after chain and signature."""

_NO_CHECK_TIME = ssl.VerifyFlags(0x200000)
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, for which the ssl module has no name."""

_LONGEST_ANSWER = 4096


Judge = Callable[[x509.Certificate, Amphora, datetime], bool]
"""Whether who shows this certificate may be given another one, at this time."""


class Handshakes:
    """One owner: the client of the agents."""

    def __init__(
        self,
        controller_identity: str,
        authority: Authority,
        octavia: TakenOver,
        clock: Clock,
        issue: Callable[[AmphoraId], bytes],
    ) -> None:
        """`issue` makes the body of the identity call, with a fresh certificate."""
        self._controller_identity = controller_identity
        self._authority = authority
        self._octavia = octavia
        self._clock = clock
        self._issue = issue
        self._contexts: dict[Path, tuple[tuple[int, bytes], ssl.SSLContext]] = {}
        self._shown: dict[str, datetime] = {}

    def context(self, amphora: Amphora) -> ssl.SSLContext:
        """Made anew when the controller's certificate was renewed, or other authorities are trusted; connections of the
        old one end by themselves. An amphora that an Octavia made knows only that one's."""
        path, bundle = self._known_by(amphora)
        made_of = (path.stat().st_mtime_ns, bundle)
        known = self._contexts.get(path)
        if known is None or known[0] != made_of:
            self._contexts[path] = known = (made_of, self._make(path, bundle))
        return known[1]

    def shown_until(self, amphora_id: AmphoraId) -> datetime | None:
        """When the certificate ends that an amphora showed in its last handshake with us."""
        return self._shown.get(amphora_id)

    async def shake(self, amphora: Amphora, address: str, port: int) -> None:
        """One handshake, to see what is shown now. Raises OSError."""
        context = self.context(amphora)
        _reader, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname=amphora.id)
        await _close(writer)

    def may_be_reborn(self, amphora: Amphora, error: Exception) -> bool:
        """Whether trouble with a connection may be that of an amphora that shows, and knows, what it was born with."""
        if self._is_octavias(amphora):
            return False
        found = getattr(error, "certificate_error", error)
        if getattr(found, "verify_code", None) == HAS_EXPIRED:
            return True
        # An agent that knows us no more says so when the handshake is over for us, or cuts the connection.
        was_there = isinstance(error, aiohttp.ClientSSLError) or not isinstance(
            error, TimeoutError | aiohttp.ClientConnectorError
        )
        return was_there and amphora.birth_fingerprint is not None and bool(self._former())

    async def give_identity(self, amphora: Amphora, address: str, port: int) -> bool:
        """Give another identity to who shows a certificate of ours for this very amphora that has expired, or what it was born
        with under an authority of before; whether it was taken. Whoever shows anything else is told nothing. Raises OSError."""
        known_by: list[tuple[Path, bytes, Judge]] = [(*self._known_by(amphora), is_hers)]
        known_by += [(x, _last_certificate(x), was_born_with) for x in self._former()]
        trouble: OSError | None = None
        for path, bundle, judge in known_by:
            try:
                if await self._give(amphora, address, port, self._make(path, bundle), judge):
                    return True
            except OSError as error:  # it knows us by another one, or was signed by another
                trouble = error
        if trouble is not None:
            raise trouble
        return False

    async def _give(self, amphora: Amphora, address: str, port: int, context: ssl.SSLContext, judge: Judge) -> bool:
        context.verify_flags |= _NO_CHECK_TIME  # chain, signatures, name and purpose are verified all the same
        reader, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname=amphora.id)
        try:
            shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            if shown is None or not judge(x509.load_der_x509_certificate(shown), amphora, self._clock()):
                return False
            body = self._issue(amphora.id)
            head = (f"PUT {IDENTITY_PATH} HTTP/1.1", f"Host: {amphora.id}", f"Content-Length: {len(body)}")
            writer.write("\r\n".join((*head, "Connection: close", "", "")).encode() + body)
            await writer.drain()
            return (await reader.read(_LONGEST_ANSWER)).startswith(b"HTTP/1.1 200 ")
        finally:
            await _close(writer)

    def _former(self) -> tuple[Path, ...]:
        return self._authority.former(self._controller_identity)

    def _known_by(self, amphora: Amphora) -> tuple[Path, bytes]:
        """What it is shown, and who may have signed what it shows."""
        octavia = self._octavia()
        if octavia is not None and self._is_octavias(amphora):
            return octavia.client, octavia.bundle
        return self._authority.client_pem(self._controller_identity), self._authority.bundle

    def _is_octavias(self, amphora: Amphora) -> bool:
        octavia = self._octavia()
        return octavia is not None and amphora.identity_digest == octavia.digest

    def _make(self, path: Path, bundle: bytes) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_verify_locations(cadata=bundle.decode())
        context.load_cert_chain(path)
        shown = self._shown

        class Noting(ssl.SSLObject):
            """Notes what is shown once for each connection, which costs requests nothing."""

            def do_handshake(self) -> None:
                super().do_handshake()
                certificate = self.getpeercert()
                if self.server_hostname is not None and certificate:
                    ends = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
                    shown[self.server_hostname] = datetime.fromtimestamp(ends, UTC)

        context.sslobject_class = Noting
        return context


def is_hers(shown: x509.Certificate, amphora: Amphora, now: datetime) -> bool:
    """Whether a certificate of ours for this amphora (TLS has seen to that) has expired, and agrees with what is on record of
    it: it is what the amphora was born with or was given last. Where it is not known what it was born with, it was good at some
    time since the amphora is there, and not for longer than what it was given last."""
    ends, until = shown.not_valid_after_utc, amphora.certificate_expires_at
    if until is None or not amphora.created_at < ends <= min(until, now):
        return False
    return amphora.birth_fingerprint is None or ends == until or was_born_with(shown, amphora, now)


def was_born_with(shown: x509.Certificate, amphora: Amphora, _now: datetime) -> bool:
    """Whether it is the very certificate in its boot files. Of an authority of before its signature alone proves nothing: its key
    may be why there is another one."""
    return shown.fingerprint(hashes.SHA256()).hex() == amphora.birth_fingerprint


def _last_certificate(path: Path) -> bytes:
    """Of the authority, in a file of Authority.former."""
    return x509.load_pem_x509_certificates(path.read_bytes())[-1].public_bytes(serialization.Encoding.PEM)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()

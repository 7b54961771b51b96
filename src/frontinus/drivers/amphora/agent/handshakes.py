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

from cryptography import x509

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

    async def give_identity(self, amphora: Amphora, address: str, port: int) -> bool:
        """Give another certificate to who shows one of ours for this very amphora that has expired; whether it was taken.
        Whoever shows anything else is told nothing. Raises OSError."""
        if self._is_octavias(amphora):
            return False
        context = self._make(*self._known_by(amphora))
        context.verify_flags |= _NO_CHECK_TIME  # chain, signatures, name and purpose are verified all the same
        reader, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname=amphora.id)
        try:
            shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            if shown is None or not is_hers(x509.load_der_x509_certificate(shown), amphora, self._clock()):
                return False
            body = self._issue(amphora.id)
            head = (f"PUT {IDENTITY_PATH} HTTP/1.1", f"Host: {amphora.id}", f"Content-Length: {len(body)}")
            writer.write("\r\n".join((*head, "Connection: close", "", "")).encode() + body)
            await writer.drain()
            return (await reader.read(_LONGEST_ANSWER)).startswith(b"HTTP/1.1 200 ")
        finally:
            await _close(writer)

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
    it: it was good at some time since the amphora is there, and not for longer than what it was given last."""
    ends, until = shown.not_valid_after_utc, amphora.certificate_expires_at
    return until is not None and amphora.created_at < ends <= min(until, now)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()

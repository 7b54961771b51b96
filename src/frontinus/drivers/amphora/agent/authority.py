"""The certificate authority of one installation, and the key from which heartbeat keys are made.

Controllers and amphorae trust it and nothing else. Certificates say one thing each: an amphora's is for serving under
its id, a controller's is for asking under the controller's identity. Private keys never leave the directory but for
the amphora they are made for. The authority, and with it the key of heartbeats, can be replaced by another one without
anybody being refused meanwhile (`Authority.advance`). Every file is 0600 in a directory of 0700, and appears whole or not at all.
Next: boot.py, client.py."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from frontinus.drivers.private_files import locked, scratch_files, write_private

Clock = Callable[[], datetime]

HEARTBEAT, HEARTBEAT_NEW, HEARTBEAT_OLD = "heartbeat.key", "heartbeat-new.key", "heartbeat-old.key"
"""From which amphorae's keys are made; from which they will be; from which they were, and are still accepted."""

ISSUING, NEW, OLD = "ca.pem", "ca-new.pem", "ca-old.pem"
"""Certificate and key of the authority that issues; of the one that will; and the certificate of the one that did."""

FORMER = "former-*.pem"
"""Of an authority that issues no more: its certificate, and one with key by which a controller asks amphorae that know no other
since they restarted."""

MASTER_SIZE = 32

CA_VALIDITY = timedelta(days=3650)
CLIENT_VALIDITY = timedelta(days=30)
OUTLIVED_AFTER = timedelta(days=1)
"""So long past the time of its renewal nobody uses a controller's certificate."""
BACKDATED = timedelta(hours=1)
"""How far before now a certificate becomes valid: clocks of two controllers may differ."""
FAR_BACKDATED = timedelta(days=365)
"""The same of what amphorae verify. A machine that was suspended for months has the time of then, and TLS judges a controller
by it before that one can say how late it is. Nobody could have used a certificate before it was made."""


def utc_now() -> datetime:
    return datetime.now(UTC)


class Phase(StrEnum):
    """Where a change of the authority stands. Each phase is safe to stay in: nobody is refused in any of them, and in the
    step to the next one neither, once every amphora and every controller has reached it."""

    STEADY = "steady"
    """There is one authority."""
    INTRODUCED = "introduced"
    """A new one is trusted beside it, and issues nothing yet."""
    IN_USE = "in use"
    """The new one issues; the old one is still trusted."""


@dataclass(frozen=True)
class _Held:
    """What the directory holds, as it was when `seen` was read."""

    seen: tuple[int | None, ...]
    issuing: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    new: x509.Certificate | None
    old: x509.Certificate | None
    masters: tuple[bytes, ...]
    """What heartbeat keys are made from: that of now first, and during a change the other."""


class Authority:
    """Open with `Authority.open`. Any number of processes may have one directory open, and see what another of them does
    to it with their next call."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock
        self._paths = tuple(directory / name for name in (ISSUING, NEW, OLD, HEARTBEAT, HEARTBEAT_NEW, HEARTBEAT_OLD))
        self._last = self._read()
        self._bundle: tuple[tuple[int | None, ...], bytes] | None = None
        self._judged: tuple[tuple[Path, str, int | None], tuple[int | None, ...], datetime | None] | None = None

    @classmethod
    def open(cls, directory: Path, clock: Clock = utc_now) -> Authority:
        """Read the authority, making it on first use. When several processes race, one makes it and all get that one.

        Raises OSError when the directory cannot be used, ValueError when what is in it is not an authority."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        with locked(directory):
            # One file holds certificate and key: there is never one without the other.
            if not (directory / ISSUING).exists():
                write_private(directory / ISSUING, _new_authority(clock()))
            if not (directory / HEARTBEAT).exists():
                write_private(directory / HEARTBEAT, secrets.token_bytes(MASTER_SIZE))
        return cls(directory, clock)

    @property
    def directory(self) -> Path:
        return self._directory

    @property
    def phase(self) -> Phase:
        held = self._held()
        if held.new is not None:
            return Phase.INTRODUCED
        return Phase.STEADY if held.old is None else Phase.IN_USE

    @property
    def issuing(self) -> x509.Certificate:
        """The authority that issues now."""
        return self._held().issuing

    @property
    def trusted(self) -> tuple[x509.Certificate, ...]:
        """Every authority whose certificates are accepted: the one that issues, and during a change the other."""
        held = self._held()
        return (held.issuing, *(x for x in (held.new, held.old) if x is not None and x != held.issuing))

    @property
    def bundle(self) -> bytes:
        """The certificates of `trusted`, PEM. Public. Each request asks, so it is kept for as long as no file has changed."""
        held = self._held()
        if self._bundle is None or self._bundle[0] != held.seen:
            self._bundle = (held.seen, b"".join(map(_certificate_pem, self.trusted)))
        return self._bundle[1]

    @property
    def digest(self) -> str:
        """Of what an amphora is given: who is trusted, and who issues. 64 hexadecimal digits."""
        held = self._held()
        trusted = sorted(x.fingerprint(hashes.SHA256()) for x in self.trusted)
        return hashlib.sha256(held.issuing.fingerprint(hashes.SHA256()) + b"".join(trusted)).hexdigest()

    def advance(self) -> Phase:
        """One step of a change of the authority, from STEADY over INTRODUCED and IN_USE to STEADY; the phase reached.

        The caller sees to it that every amphora, and every other host's copy of the directory, has the phase before."""
        issuing, new, old, heartbeat, heartbeat_new, heartbeat_old = self._paths
        with locked(self._directory):
            # The certificates, which tell the phase, come last: what a crash leaves is done again.
            match self.phase:
                case Phase.STEADY:
                    write_private(heartbeat_new, secrets.token_bytes(MASTER_SIZE))
                    write_private(new, _new_authority(self._clock()))
                case Phase.INTRODUCED:
                    # The old one is kept first: whoever reads in between trusts both.
                    if heartbeat_new.exists():  # else it is in use already, or the change was begun by an older version
                        write_private(heartbeat_old, heartbeat.read_bytes())
                        heartbeat_new.replace(heartbeat)
                    self._keep_clients()
                    write_private(old, _certificate_pem(self.issuing))
                    new.replace(issuing)
                case Phase.IN_USE:
                    heartbeat_old.unlink(missing_ok=True)
                    old.unlink()
        return self.phase

    def _held(self) -> _Held:
        if tuple(map(_stamp, self._paths)) != self._last.seen:
            self._last = self._read()
        return self._last

    def _read(self) -> _Held:
        """Raises OSError, ValueError. Read again when it changed meanwhile."""
        issuing, new, old, *masters = self._paths
        while True:
            seen = tuple(map(_stamp, self._paths))
            try:
                content = issuing.read_bytes()
                key = serialization.load_pem_private_key(content, None)
                if not isinstance(key, ec.EllipticCurvePrivateKey):  # the content is wrong, and no caller's type
                    raise ValueError(  # noqa: TRY004
                        f"{issuing} does not hold an authority of ours: its key is of another kind"
                    )
                held = _Held(
                    seen, x509.load_pem_x509_certificate(content), key, _load(new), _load(old), _masters(masters)
                )
            except FileNotFoundError:
                if tuple(map(_stamp, self._paths)) == seen:
                    raise
                continue
            if tuple(map(_stamp, self._paths)) == seen:
                return held

    def issue_server(self, amphora_id: str, validity: timedelta) -> bytes:
        """A fresh certificate and key, one PEM, with which an amphora serves under its id; good for nothing else."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._issue(amphora_id, key, validity, ExtendedKeyUsageOID.SERVER_AUTH)
        return _certificate_pem(certificate) + _key_pem(key)

    def client_pem(self, identity: str) -> Path:
        """Path of a PEM with certificate and key under which a controller asks; made or renewed when less than half of
        its time is left. Safe to call from many processes; cheap when there is nothing to do."""
        path = self._directory / f"client-{_file_name(identity)}.pem"
        if not self._is_fresh(path, identity):
            with locked(self._directory):
                if not self._is_fresh(path, identity):
                    key = ec.generate_private_key(ec.SECP256R1())
                    certificate = self._issue(
                        identity, key, CLIENT_VALIDITY, ExtendedKeyUsageOID.CLIENT_AUTH, backdated=FAR_BACKDATED
                    )
                    write_private(path, _certificate_pem(certificate) + _key_pem(key))
        return path

    def former(self, identity: str) -> tuple[Path, ...]:
        """Under which it asked amphorae that an authority before the present one made; those last issued by first."""
        ending = f"-{_file_name(identity)}.pem"
        found = (x for x in self._directory.glob(FORMER) if x.name.endswith(ending))
        return tuple(sorted(found, key=lambda x: x.stat().st_mtime_ns, reverse=True))

    def _keep_clients(self) -> None:
        """For each controller a last certificate of the authority that issues now, which ends with that: a machine that restarts
        by itself knows no other again (docs/design/0033-restarted-machines.md)."""
        issuing = self.issuing
        mark = issuing.fingerprint(hashes.SHA256()).hex()[:16]
        left = issuing.not_valid_after_utc - self._clock()
        for path in self._directory.glob("client-*.pem"):
            try:
                names = x509.load_pem_x509_certificate(path.read_bytes()).extensions.get_extension_for_class(
                    x509.SubjectAlternativeName
                )
            except (OSError, ValueError, x509.ExtensionNotFound):  # whoever asks under it makes it anew
                continue
            for identity in names.value.get_values_for_type(x509.DNSName):
                key = ec.generate_private_key(ec.SECP256R1())
                usage = ExtendedKeyUsageOID.CLIENT_AUTH
                certificate = self._issue(identity, key, left, usage, backdated=FAR_BACKDATED)
                content = _certificate_pem(certificate) + _key_pem(key) + _certificate_pem(issuing)
                write_private(self._directory / f"former-{mark}-{_file_name(identity)}.pem", content)

    def outlived_clients(self) -> tuple[Path, ...]:
        """Certificates of controllers that nobody asks under any more: whoever does renews his after half of its time."""
        limit = self._clock() + CLIENT_VALIDITY / 2 - OUTLIVED_AFTER
        return tuple(
            x for x in self._directory.glob("client-*.pem") if _is_ours_and_ends_before(x, self.trusted, limit)
        )

    def scratch(self) -> tuple[Path, ...]:
        """What is being written in the directory, or was when its writer was killed."""
        return tuple(scratch_files(self._directory))

    def heartbeat_key(self, amphora_id: str) -> str:
        """The key of one amphora, as the text that goes into its configuration. It says nothing of any other key."""
        return heartbeat_key(self.heartbeat_masters[0], amphora_id)

    @property
    def heartbeat_masters(self) -> tuple[bytes, ...]:
        """What the keys of amphorae are made from: that of now first, and during a change the other that is accepted."""
        return self._held().masters

    def _is_fresh(self, path: Path, identity: str) -> bool:
        """Whether it is good for now. Each request asks, so what was found is kept for as long as no file has changed."""
        held, known_by = self._held(), (path, identity, _stamp(path))
        if self._judged is None or self._judged[:2] != (known_by, held.seen):
            self._judged = (known_by, held.seen, self._good_until(path, identity))
        until = self._judged[2]
        return until is not None and self._clock() < until

    def _good_until(self, path: Path, identity: str) -> datetime | None:
        """When half of its time is over; None if it is not a certificate of ours for this identity."""
        try:
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
        except (OSError, ValueError):  # missing or damaged: it is made anew
            return None
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        issuing = self.issuing
        ours = certificate.issuer == issuing.subject and _signed_by(certificate, issuing)
        if not ours or names.get_values_for_type(x509.DNSName) != [identity]:
            return None
        return certificate.not_valid_after_utc - CLIENT_VALIDITY / 2

    def _issue(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        validity: timedelta,
        usage: x509.ObjectIdentifier,
        *,
        backdated: timedelta = BACKDATED,
    ) -> x509.Certificate:
        now, held = self._clock(), self._held()
        return (
            x509.CertificateBuilder()
            .subject_name(_common_name(name))
            .issuer_name(held.issuing.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - backdated)
            .not_valid_after(now + validity)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(held.key.public_key()), critical=False)
            .sign(held.key, hashes.SHA256())
        )


def _is_ours_and_ends_before(path: Path, trusted: tuple[x509.Certificate, ...], limit: datetime) -> bool:
    """Also of an authority that is trusted no more, if it has the name of ours."""
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return False
    return certificate.issuer in {x.subject for x in trusted} and certificate.not_valid_after_utc < limit


def heartbeat_key(master: bytes, amphora_id: str) -> str:
    return hmac.digest(master, amphora_id.encode(), "sha256").hex()


def _masters(paths: list[Path]) -> tuple[bytes, ...]:
    """Raises FileNotFoundError without the first; ValueError for what is none."""
    found = [paths[0].read_bytes(), *(x.read_bytes() for x in paths[1:] if x.exists())]
    if any(len(x) != MASTER_SIZE for x in found):
        raise ValueError(f"{paths[0].parent} does not hold an authority of ours: remove it, or name another directory")
    return tuple(dict.fromkeys(found))


def _stamp(path: Path) -> int | None:
    """Changes with every write, since each makes a new file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns ^ (found.st_ino << 1)


def _load(path: Path) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except FileNotFoundError:
        return None


def _new_authority(now: datetime) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return _certificate_pem(_make_ca(key, now)) + _key_pem(key)


def _make_ca(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    name = _common_name("Frontinus amphora authority")
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - FAR_BACKDATED)
        .not_valid_after(now + CA_VALIDITY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _key_usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # noqa: BLE001 - cryptography raises several kinds; whichever it is, the certificate is made anew
        return False
    return True


def _certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _file_name(identity: str) -> str:
    return "".join(character if character.isalnum() or character in "-." else "_" for character in identity)

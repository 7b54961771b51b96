"""The certificate authority of one installation, and the key from which heartbeat keys are made.

Controllers and amphorae trust it and nothing else. Certificates say one thing each: an amphora's is for serving under
its id, a controller's is for asking under the controller's identity. Private keys never leave the directory but for
the amphora they are made for. Every file is 0600 in a directory of 0700, and appears whole or not at all.
Next: boot.py, client.py."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from frontinus.drivers.private_files import locked, write_private

Clock = Callable[[], datetime]

CA_VALIDITY = timedelta(days=3650)
CLIENT_VALIDITY = timedelta(days=30)
BACKDATED = timedelta(hours=1)
"""How far before now a certificate becomes valid: clocks of controller and amphora may differ."""


def utc_now() -> datetime:
    return datetime.now(UTC)


class Authority:
    """Open with `Authority.open`. Any number of processes may have one directory open."""

    def __init__(
        self,
        directory: Path,
        key: ec.EllipticCurvePrivateKey,
        certificate: x509.Certificate,
        master: bytes,
        clock: Clock,
    ) -> None:
        self._directory = directory
        self._key = key
        self._certificate = certificate
        self._master = master
        self._clock = clock

    @classmethod
    def open(cls, directory: Path, clock: Clock = utc_now) -> Authority:
        """Read the authority, making it on first use. When several processes race, one makes it and all get that one.

        Raises OSError when the directory cannot be used, ValueError when what is in it is not an authority."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        ca_path, master_path = directory / "ca.pem", directory / "heartbeat.key"
        with locked(directory):
            # One file holds certificate and key: there is never one without the other.
            if not ca_path.exists():
                key = ec.generate_private_key(ec.SECP256R1())
                write_private(ca_path, _certificate_pem(_make_ca(key, clock())) + _key_pem(key))
            if not master_path.exists():
                write_private(master_path, secrets.token_bytes(32))
        content = ca_path.read_bytes()
        certificate = x509.load_pem_x509_certificate(content)
        private_key = serialization.load_pem_private_key(content, None)
        master = master_path.read_bytes()
        if not isinstance(private_key, ec.EllipticCurvePrivateKey) or len(master) != 32:
            raise ValueError(f"{directory} does not hold an authority of ours: remove it, or name another directory")
        return cls(directory, private_key, certificate, master, clock)

    @property
    def certificate(self) -> bytes:
        """The authority's certificate, PEM. Public."""
        return _certificate_pem(self._certificate)

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
                    certificate = self._issue(identity, key, CLIENT_VALIDITY, ExtendedKeyUsageOID.CLIENT_AUTH)
                    write_private(path, _certificate_pem(certificate) + _key_pem(key))
        return path

    def heartbeat_key(self, amphora_id: str) -> str:
        """The key of one amphora, as the text that goes into its configuration. It says nothing of any other key."""
        return hmac.digest(self._master, amphora_id.encode(), "sha256").hex()

    def _is_fresh(self, path: Path, identity: str) -> bool:
        try:
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
        except (OSError, ValueError):  # missing or damaged: it is made anew
            return False
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        ours = certificate.issuer == self._certificate.subject and _signed_by(certificate, self._certificate)
        half_way = certificate.not_valid_after_utc - CLIENT_VALIDITY / 2
        return ours and names.get_values_for_type(x509.DNSName) == [identity] and self._clock() < half_way

    def _issue(
        self, name: str, key: ec.EllipticCurvePrivateKey, validity: timedelta, usage: x509.ObjectIdentifier
    ) -> x509.Certificate:
        now = self._clock()
        return (
            x509.CertificateBuilder()
            .subject_name(_common_name(name))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(now + validity)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )


def _make_ca(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    name = _common_name("Frontinus amphora authority")
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
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

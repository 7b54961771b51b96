"""The authorities of an Octavia whose amphorae were taken over: they go on trusting its client authority, and nobody else.

Its plain protocol can give an agent another certificate and never another authority, so these amphorae stay with what they
were born with: a controller shows them Octavia's client certificate, and their own certificates are renewed by Octavia's
server authority. Nothing of ours is mixed in, so that Octavia could take them back. Files of mode 0600 below the directory
of our own authority; absent where nothing was taken over. Next: authority.py, client.py."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from frontinus.drivers.amphora.agent.authority import BACKDATED, Clock, utc_now
from frontinus.drivers.private_files import locked, write_private

DIRECTORY = "octavia"
SERVER_AUTHORITY, CLIENT = "server_ca.pem", "client.pem"


class TakenOver:
    """What lies below the directory of an authority of ours now: looked for with every call, for it may come while a
    controller runs."""

    def __init__(self, directory: Path, clock: Clock = utc_now) -> None:
        self._directory = directory / DIRECTORY
        self._clock = clock
        self._last: tuple[int, OctaviaAuthority] | None = None

    def __call__(self) -> OctaviaAuthority | None:
        """None where nothing was taken over. Raises OSError, ValueError when what is there cannot be used."""
        try:
            seen = (self._directory / CLIENT).stat().st_mtime_ns
        except FileNotFoundError:
            return None
        if self._last is None or self._last[0] != seen:
            self._last = (seen, OctaviaAuthority(self._directory, self._clock))
        return self._last[1]


class OctaviaAuthority:
    """As read from its directory."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        """Raises OSError, ValueError."""
        self._clock = clock
        self.client = directory / CLIENT
        """Certificate and key that a controller shows, in one PEM."""
        content = (directory / SERVER_AUTHORITY).read_bytes()
        self.trusted = x509.load_pem_x509_certificates(content)
        """Who may have signed an amphora's certificate; the first one signs new ones."""
        self._key = _load_key(content, None)
        self.client_certificate = x509.load_pem_x509_certificate(self.client.read_bytes())

    @staticmethod
    def keep(directory: Path, server_authority: bytes, client: bytes) -> None:
        """Write both: the first with its key, not encrypted. The same again changes nothing. Raises OSError; ValueError
        when one of them is not what it should be, or another Octavia's is there already."""
        _check(server_authority, client)
        below = directory / DIRECTORY
        below.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(below):
            # The client's file last: it is what makes the whole exist.
            for name, content in ((SERVER_AUTHORITY, server_authority), (CLIENT, client)):
                path = below / name
                if not path.exists():
                    write_private(path, content)
                elif path.read_bytes() != content:
                    raise ValueError(f"{path} holds another one: of another Octavia, or of before it was renewed")

    @property
    def digest(self) -> str:
        """Of who is trusted on both sides: the identity digest (model.boot.Identity) of amphorae that were taken over."""
        return _digest(self.trusted)

    @property
    def bundle(self) -> bytes:
        return b"".join(x.public_bytes(serialization.Encoding.PEM) for x in self.trusted)

    def issue_server(self, amphora_id: str, validity: timedelta) -> bytes:
        """A fresh certificate and key, one PEM, in the form of Octavia's (contract amphora-agent.yaml, server_certificate)."""
        issuer, now = self.trusted[0], self._clock()
        key = rsa.generate_private_key(65537, 2048)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, amphora_id)]))
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(self.last_day(now + validity))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(amphora_id)]), critical=False)
            .add_extension(_USAGE, critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=True
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )

    def last_day(self, wanted: datetime) -> datetime:
        """No certificate outlives who signed it."""
        return min(wanted, self.trusted[0].not_valid_after_utc)


def digest_of(server_authority: bytes) -> str:
    """`digest` of an authority as `keep` takes it."""
    return _digest(x509.load_pem_x509_certificates(server_authority))


def _digest(trusted: list[x509.Certificate]) -> str:
    return hashlib.sha256(b"octavia" + b"".join(x.fingerprint(hashes.SHA256()) for x in trusted)).hexdigest()


def plain_authority(certificate: bytes, key: bytes, passphrase: bytes | None) -> bytes:
    """An authority's certificates and its key, as `keep` takes them. Raises ValueError: it cannot be read,
    or not with this passphrase."""
    return b"".join(
        x.public_bytes(serialization.Encoding.PEM) for x in x509.load_pem_x509_certificates(certificate)
    ) + _load_key(key, passphrase).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _load_key(content: bytes, passphrase: bytes | None) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(content, passphrase)
    except TypeError as error:  # a passphrase where none is needed, or none where one is
        raise ValueError(str(error)) from error
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise ValueError("its key is of a kind that signs no certificates here")  # noqa: TRY004 - it is the content
    return key


def _check(server_authority: bytes, client: bytes) -> None:
    certificates, key = x509.load_pem_x509_certificates(server_authority), _load_key(server_authority, None)
    if certificates[0].public_key() != key.public_key():
        raise ValueError("the key of the server authority is not that of its certificate")
    if x509.load_pem_x509_certificate(client).public_key() != _load_key(client, None).public_key():
        raise ValueError("the key in the client certificate's file is not the certificate's")


_USAGE = x509.KeyUsage(
    digital_signature=True,
    key_encipherment=True,
    data_encipherment=True,
    key_agreement=True,
    content_commitment=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)

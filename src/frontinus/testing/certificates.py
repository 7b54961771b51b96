"""Certificates for exams and tests: an authority that issues, revokes, and can be the authority of another."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from frontinus.model.certificates import Certificate


@dataclass
class TestAuthority:
    """Issues certificates for names and addresses. Keys are elliptic curves: they are made in a millisecond."""

    __test__ = False  # pytest: this is no test

    name: str = "an authority"
    parent: TestAuthority | None = None
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        issuer = self.parent or self
        self.certificate = self._sign(self.name, (), self.key, issuer, timedelta(days=1), is_authority=True)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def issue(self, *names: str, lifetime: timedelta = timedelta(days=1)) -> Certificate:
        """A fresh certificate whose first name is its common name too."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._sign(names[0], names, key, self, lifetime, is_authority=False)
        return Certificate(
            certificate=made.public_bytes(Encoding.PEM),
            private_key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            intermediates=() if self.parent is None else (self.pem,),
        )

    def revoke(self, *certificates: Certificate) -> bytes:
        """A revocation list of these, in PEM."""
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
        builder = builder.last_update(now - timedelta(hours=1)).next_update(now + timedelta(days=1))
        for certificate in certificates:
            number = x509.load_pem_x509_certificate(certificate.certificate).serial_number
            revoked = x509.RevokedCertificateBuilder().serial_number(number).revocation_date(now).build()
            builder = builder.add_revoked_certificate(revoked)
        return builder.sign(self.key, SHA256()).public_bytes(Encoding.PEM)

    @staticmethod
    def _sign(
        name: str,
        names: Sequence[str],
        key: ec.EllipticCurvePrivateKey,
        issuer: TestAuthority,
        lifetime: timedelta,
        *,
        is_authority: bool,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer.name)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + lifetime)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False)
        )
        if is_authority:
            builder = builder.add_extension(_AUTHORITY_USAGE, critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_name(x) for x in names]), critical=False)
        return builder.sign(issuer.key, SHA256())


def bundle(certificate: Certificate) -> bytes:
    """Certificate, key and intermediates as one PEM text."""
    return b"".join((certificate.certificate, certificate.private_key, *certificate.intermediates))


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


_AUTHORITY_USAGE = x509.KeyUsage(
    digital_signature=True,
    key_cert_sign=True,
    crl_sign=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)

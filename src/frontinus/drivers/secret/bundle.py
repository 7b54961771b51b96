"""From what people have, PEM, PKCS#12 or one of forms.py, to what was checked. Pure.

A bundle holds a private key with the certificate that belongs to it and any intermediates, in any order (which one is
the leaf is found by the key); or certificates of authorities without a key; or revocation lists; the last two also
together. Errors are Invalid and say what to bring instead."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import pkcs12

from frontinus.drivers.secret.forms import as_pem
from frontinus.model.certificates import Certificate
from frontinus.model.errors import Invalid

FIELD = "secret"
_KEY_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----.+?-----END \1-----", re.DOTALL)
_CERTIFICATE = re.compile(rb"-----BEGIN (?:X509 )?CERTIFICATE-----")
_LIST_BLOCK = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)
_Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """What was in it: a certificate with its key; or certificates and revocation lists alone, each a PEM text."""

    certificate: Certificate | None = None
    authorities: tuple[bytes, ...] = ()
    lists: tuple[bytes, ...] = ()


def parse_bundle(content: bytes, password: str | None = None) -> Bundle:
    """What is in a PEM text, a PKCS#12 file, or what forms.py makes one of. Raises Invalid."""
    secret, content = None if password is None else password.encode(), as_pem(content)
    if b"-----BEGIN " in content:
        return _parse_pem(content, secret)
    return _parse_pkcs12(content, secret)


def describe(certificate: bytes) -> tuple[str, tuple[str, ...]]:
    """The subject of a certificate in PEM, and the names and addresses that it is good for."""
    parsed = x509.load_pem_x509_certificate(certificate)
    try:
        alternative = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return parsed.subject.rfc4514_string(), ()
    names = [*alternative.get_values_for_type(x509.DNSName)]
    names += [str(x) for x in alternative.get_values_for_type(x509.IPAddress)]
    return parsed.subject.rfc4514_string(), tuple(names)


def first_end(certificates: Iterable[bytes], lists: Iterable[bytes] = ()) -> datetime | None:
    """When the first of these ceases to be good. A list that names no next one never does."""
    ends = [x509.load_pem_x509_certificate(x).not_valid_after_utc for x in certificates]
    ends += [end for x in lists if (end := x509.load_pem_x509_crl(x).next_update_utc) is not None]
    return min(ends, default=None)


def _parse_pem(content: bytes, password: bytes | None) -> Bundle:
    keys = [match.group(0) for match in _KEY_BLOCK.finditer(content)]
    lists = [match.group(0) for match in _LIST_BLOCK.finditer(content)]
    has_certificates = _CERTIFICATE.search(content) is not None
    if not keys and not has_certificates and not lists:
        raise Invalid(FIELD, "the PEM text holds no certificate, no key and no revocation list")
    certificates = _load_certificates(content) if has_certificates else []
    if not keys:
        if password is not None:
            raise Invalid(FIELD, "the PEM text holds no private key, so there is nothing to open: give no password")
        return Bundle(
            authorities=tuple(x.public_bytes(serialization.Encoding.PEM) for x in certificates),
            lists=tuple(_load_list(block) for block in lists),
        )
    if lists:
        raise Invalid(FIELD, "the PEM text holds a private key and a revocation list; store them as two secrets")
    if len(keys) > 1:
        raise Invalid(FIELD, "the PEM text holds more than one private key; keep the certificate's")
    try:
        key = serialization.load_pem_private_key(keys[0], password)
    except TypeError as error:
        need = "is encrypted: give its password" if password is None else "is not encrypted: give no password"
        raise Invalid(FIELD, f"the private key {need}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Invalid(FIELD, "the private key cannot be read; is the password right?") from error
    if not certificates:
        raise Invalid(FIELD, "the PEM text holds no certificate")
    return _assemble(key, certificates)


def _load_certificates(content: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise Invalid(FIELD, "a certificate in the PEM text cannot be read") from error


def _load_list(block: bytes) -> bytes:
    try:
        return x509.load_pem_x509_crl(block).public_bytes(serialization.Encoding.PEM)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Invalid(FIELD, "a revocation list in the PEM text cannot be read") from error


def _parse_pkcs12(content: bytes, password: bytes | None) -> Bundle:
    try:
        key, leaf, others = pkcs12.load_key_and_certificates(content, password)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Invalid(FIELD, "this is neither PEM nor a PKCS#12 file that the password opens") from error
    if key is None or leaf is None:
        raise Invalid(FIELD, "the PKCS#12 file lacks the private key or the certificate that belongs to it")
    return _assemble(key, [leaf, *others])


def _assemble(key: object, certificates: list[x509.Certificate]) -> Bundle:
    if not isinstance(key, _Key):
        raise Invalid(FIELD, "the private key must be RSA, elliptic-curve or Ed25519")
    own = _public(key.public_key())
    leaves = [certificate for certificate in certificates if _public_of(certificate) == own]
    if not leaves:
        raise Invalid(FIELD, "the private key belongs to none of the certificates")
    leaf = leaves[0]
    return Bundle(
        certificate=Certificate(
            certificate=leaf.public_bytes(serialization.Encoding.PEM),
            private_key=key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
            intermediates=tuple(x.public_bytes(serialization.Encoding.PEM) for x in certificates if x != leaf),
        )
    )


def _public_of(certificate: x509.Certificate) -> bytes | None:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):  # an intermediate of a kind that we cannot read is still carried
        return None
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _public(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)

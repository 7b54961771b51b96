"""The forms in which people keep certificates and keys beside PEM, turned into PEM: DER, PKCS#7, and base64 of either. Pure.

What none of them is (PKCS#12, or nothing that anybody knows) stays as it is, but for base64. Next: bundle.py."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs7

_PEM = b"-----BEGIN "
_PKCS7_BLOCK = re.compile(rb"-----BEGIN PKCS7-----(.+?)-----END PKCS7-----", re.DOTALL)
_BASE64 = re.compile(rb"[A-Za-z0-9+/\s]+={0,2}\s*")
_BAD = (ValueError, UnsupportedAlgorithm)


def as_pem(content: bytes) -> bytes:
    """Certificates, a key or a revocation list as PEM text, whichever form they came in."""
    if _PEM in content:
        return _PKCS7_BLOCK.sub(lambda found: _of_pkcs7(_decoded(found[1])) or found[0], content)
    raw = _decoded(content) if _BASE64.fullmatch(content) else content
    return _of_certificate(raw) or _of_list(raw) or _of_key(raw) or _of_pkcs7(raw) or raw


def _decoded(text: bytes) -> bytes:
    try:
        return b64decode(text, validate=False)
    except ValueError:
        return text


def _of_certificate(der: bytes) -> bytes:
    try:
        return x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM)
    except _BAD:
        return b""


def _of_list(der: bytes) -> bytes:
    try:
        return x509.load_der_x509_crl(der).public_bytes(serialization.Encoding.PEM)
    except _BAD:
        return b""


def _of_pkcs7(der: bytes) -> bytes:
    try:
        found = pkcs7.load_der_pkcs7_certificates(der)
    except _BAD:
        return b""
    return b"".join(x.public_bytes(serialization.Encoding.PEM) for x in found)


def _of_key(der: bytes) -> bytes:
    try:
        key = serialization.load_der_private_key(der, None)
    except TypeError:  # it is one, and encrypted
        body = b64encode(der)
        lines = b"\n".join(body[x : x + 64] for x in range(0, len(body), 64))
        return b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n" + lines + b"\n-----END ENCRYPTED PRIVATE KEY-----\n"
    except _BAD:
        return b""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )

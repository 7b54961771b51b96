"""Whatever form people keep certificates and keys in, what is read is the same; and what is none of them stays as it is."""

from __future__ import annotations

from base64 import b64encode

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs7,
    pkcs12,
)

from frontinus.drivers.secret.bundle import parse_bundle
from frontinus.drivers.secret.forms import as_pem
from frontinus.testing.certificates import TestAuthority

pytestmark = pytest.mark.unit

AUTHORITY = TestAuthority()
ISSUED = AUTHORITY.issue("www.example.org")
LEAF = x509.load_pem_x509_certificate(ISSUED.certificate)
KEY = load_pem_private_key(ISSUED.private_key, None)
LIST = x509.load_pem_x509_crl(AUTHORITY.revoke())
TWO = [LEAF, AUTHORITY.certificate]
TWO_PEM = b"".join(x.public_bytes(Encoding.PEM) for x in TWO)
PLAIN = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
PKCS12 = pkcs12.serialize_key_and_certificates(b"www", KEY, LEAF, [AUTHORITY.certificate], NoEncryption())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wanted,content",
    [
        pytest.param(TWO_PEM, TWO_PEM, id="PEM"),
        pytest.param(ISSUED.certificate, LEAF.public_bytes(Encoding.DER), id="a certificate in DER"),
        pytest.param(ISSUED.certificate, b64encode(LEAF.public_bytes(Encoding.DER)) + b"\n", id="that in base64"),
        pytest.param(LIST.public_bytes(Encoding.PEM), LIST.public_bytes(Encoding.DER), id="a revocation list in DER"),
        pytest.param(PLAIN, KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()), id="a key in DER"),
        pytest.param(
            PLAIN,
            KEY.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
            id="a key in DER as OpenSSL once wrote it",
        ),
        pytest.param(PKCS12, PKCS12, id="PKCS#12 stays"),
        pytest.param(PKCS12, b64encode(PKCS12), id="PKCS#12 in base64"),
        pytest.param(b"\x30\x82nothing", b"\x30\x82nothing", id="nothing stays"),
        pytest.param(b"", b"", id="empty"),
    ],
)
def test_one_form_comes_out(wanted: bytes, content: bytes) -> None:
    assert wanted == as_pem(content)


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER], ids=["PEM", "DER"])
def test_all_certificates_of_pkcs7_come_out(encoding: Encoding) -> None:
    together = pkcs7.serialize_certificates(TWO, encoding)
    # It is a set: their order is not kept.
    assert {x.serial_number for x in TWO} == {
        x.serial_number for x in x509.load_pem_x509_certificates(as_pem(together))
    }


def test_a_key_that_is_encrypted_in_der_is_opened() -> None:
    encrypted = KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"word"))
    found = parse_bundle(as_pem(encrypted) + ISSUED.certificate, "word").certificate
    assert found is not None
    assert found.private_key == PLAIN


def test_a_pkcs7_block_that_is_none_is_told() -> None:
    block = b"-----BEGIN PKCS7-----\nAAAA\n-----END PKCS7-----\n"
    assert as_pem(block) == block

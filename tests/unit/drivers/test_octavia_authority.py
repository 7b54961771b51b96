"""The authorities of an Octavia, kept beside ours: what is signed, who is trusted, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from frontinus.drivers.amphora.agent.octavia_authority import (
    DIRECTORY,
    OctaviaAuthority,
    TakenOver,
    digest_of,
    plain_authority,
)
from frontinus.testing.certificates import TestAuthority, bundle


def key_of(authority: TestAuthority, passphrase: bytes | None = None) -> bytes:
    lock = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    return authority.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)


def kept(directory: Path) -> tuple[TestAuthority, OctaviaAuthority]:
    server = TestAuthority("server")
    authority = plain_authority(server.pem * 2, key_of(server, b"secret"), b"secret")
    OctaviaAuthority.keep(directory, authority, bundle(TestAuthority("client").issue("octavia")))
    found = TakenOver(directory, lambda: datetime.now(UTC))()
    assert found is not None
    assert found.digest == digest_of(authority)
    return server, found


def test_nothing_is_there_before(tmp_path: Path) -> None:
    taken_over = TakenOver(tmp_path)
    assert taken_over() is None
    kept(tmp_path)
    assert taken_over() is not None  # of the same object: a controller that runs sees it


def test_certificates_are_signed_by_octavias_authority_and_do_not_outlive_it(tmp_path: Path) -> None:
    server, found = kept(tmp_path)
    certificate = x509.load_pem_x509_certificate(found.issue_server("an-amphora", timedelta(days=30)))
    certificate.verify_directly_issued_by(server.certificate)
    assert certificate.not_valid_after_utc == server.certificate.not_valid_after_utc  # it is good for a day
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["an-amphora"]


def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    kept(tmp_path)
    assert [x.name for x in (tmp_path / DIRECTORY).iterdir() if x.stat().st_mode & 0o077] == []


def test_the_same_again_changes_nothing_and_another_is_refused(tmp_path: Path) -> None:
    server = TestAuthority("server")
    authority, client = plain_authority(server.pem, key_of(server), None), bundle(TestAuthority().issue("octavia"))
    OctaviaAuthority.keep(tmp_path, authority, client)
    OctaviaAuthority.keep(tmp_path, authority, client)
    with pytest.raises(ValueError, match="another"):
        OctaviaAuthority.keep(tmp_path, authority, bundle(TestAuthority().issue("octavia")))


@pytest.mark.parametrize(
    "passphrase", [pytest.param(None, id="none where one is needed"), pytest.param(b"wrong", id="the wrong one")]
)
def test_a_key_that_does_not_open_is_refused(passphrase: bytes | None) -> None:
    server = TestAuthority("server")
    with pytest.raises(ValueError, match=r"."):
        plain_authority(server.pem, key_of(server, b"secret"), passphrase)


def test_a_key_of_another_authority_is_refused(tmp_path: Path) -> None:
    server = TestAuthority("server")
    authority = plain_authority(server.pem, key_of(TestAuthority()), None)
    with pytest.raises(ValueError, match="not that of its certificate"):
        OctaviaAuthority.keep(tmp_path, authority, bundle(TestAuthority().issue("octavia")))
    assert TakenOver(tmp_path)() is None

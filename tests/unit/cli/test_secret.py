"""`frontinus secret`: what people bring is kept, told about, replaced and forgotten; keys are never shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509 import load_pem_x509_certificate

from frontinus.cli.main import main
from frontinus.drivers.secret.local.driver import LocalSecrets, LocalSecretsSettings
from frontinus.model.certificates import Certificate
from frontinus.model.errors import Invalid
from frontinus.model.ids import ProjectId
from frontinus.testing.certificates import TestAuthority, bundle

AUTHORITY = TestAuthority()


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    made.mkdir(mode=0o700)
    return made


def frontinus(state_dir: Path, *words: str, stdin: bytes | None = None, env: dict[str, str] | None = None) -> Result:
    command, *rest = words
    arguments = ["secret", command, "--state-dir", str(state_dir), *rest]
    return CliRunner().invoke(main, arguments, input=stdin, env=env)


def write(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def stored(state_dir: Path, *words: str, **more: bytes) -> str:
    result = frontinus(state_dir, "store", *words, **more)  # type: ignore[arg-type]
    assert result.exit_code == 0, result.output
    return result.output.strip()


def as_pkcs12(certificate: Certificate, password: bytes) -> bytes:
    key = serialization.load_pem_private_key(certificate.private_key, None)
    return pkcs12.serialize_key_and_certificates(
        b"x",
        key,  # type: ignore[arg-type]
        load_pem_x509_certificate(certificate.certificate),
        None,
        serialization.BestAvailableEncryption(password),
    )


async def test_a_certificate_is_kept_and_told_about(state_dir: Path, tmp_path: Path) -> None:
    certificate = AUTHORITY.issue("www.example.org", "192.0.2.1")
    parts = (certificate.certificate, certificate.private_key)
    files = [write(tmp_path / f"{number}.pem", part) for number, part in enumerate(parts)]
    reference = stored(state_dir, "--project", "shop", "--name", "the shop", *files)

    secrets = LocalSecrets(LocalSecretsSettings(state_dir=state_dir))
    assert (await secrets.certificate(reference, ProjectId("shop"))).certificate == certificate.certificate
    listed = frontinus(state_dir, "list").output
    assert reference in listed
    assert "the shop" in listed
    assert "ENDS SOON" in listed
    assert frontinus(state_dir, "list", "--project", "other").output == ""
    shown = frontinus(state_dir, "show", "--project", "shop", reference).output
    assert "www.example.org, 192.0.2.1" in shown
    assert "PRIVATE" not in listed + shown
    assert frontinus(state_dir, "show", "--project", "other", reference).exit_code == 2


@pytest.mark.parametrize("way", ["option", "file", "environment"])
def test_the_password_comes_by_any_way(state_dir: Path, tmp_path: Path, way: str) -> None:
    file = write(tmp_path / "x.p12", as_pkcs12(AUTHORITY.issue("www.example.org"), b"opens it"))
    words = {
        "option": ["--password", "opens it"],
        "file": ["--password-file", write(tmp_path / "password", b"opens it\nnot this\n")],
        "environment": [],
    }[way]
    env = {"FRONTINUS_SECRET_PASSWORD": "opens it"} if way == "environment" else None
    assert frontinus(state_dir, "store", *words, file, env=env).exit_code == 0
    refused = frontinus(state_dir, "store", file)
    assert refused.exit_code == 2
    assert "password" in refused.output


def test_standard_input_and_keyless_things(state_dir: Path) -> None:
    authorities = stored(state_dir, "-", stdin=AUTHORITY.pem)
    revoked = stored(state_dir, "-", stdin=AUTHORITY.revoke())
    listed = frontinus(state_dir, "list").output.splitlines()
    assert [line.split("  ")[2] for line in listed] == ["authorities", "revocations"]
    assert frontinus(state_dir, "replace", authorities, "-", stdin=AUTHORITY.revoke()).exit_code == 2
    assert frontinus(state_dir, "replace", revoked, "-", stdin=AUTHORITY.revoke()).exit_code == 0


async def test_a_secret_is_replaced_and_deleted(state_dir: Path, tmp_path: Path) -> None:
    reference = stored(state_dir, write(tmp_path / "a", bundle(AUTHORITY.issue("www.example.org"))))
    other = AUTHORITY.issue("www.example.org")
    assert frontinus(state_dir, "replace", reference, write(tmp_path / "b", bundle(other))).exit_code == 0
    secrets = LocalSecrets(LocalSecretsSettings(state_dir=state_dir))
    (told,) = secrets.list(None)
    assert told.updated_at is not None
    assert (await secrets.certificate(reference, told.project_id)).certificate == other.certificate
    assert frontinus(state_dir, "delete", reference).exit_code == 0
    assert frontinus(state_dir, "delete", reference).exit_code == 2
    assert secrets.list(None) == ()


async def test_what_changed_is_told_once(state_dir: Path, tmp_path: Path) -> None:
    secrets = LocalSecrets(LocalSecretsSettings(state_dir=state_dir))
    reference = stored(state_dir, write(tmp_path / "a", bundle(AUTHORITY.issue("www.example.org"))))
    assert await secrets.changes() == {reference}
    assert await secrets.changes() == frozenset()
    frontinus(state_dir, "replace", reference, write(tmp_path / "b", bundle(AUTHORITY.issue("www.example.org"))))
    assert await secrets.changes() == {reference}
    frontinus(state_dir, "delete", reference)
    assert await secrets.changes() == {reference}


async def test_what_was_looked_for_in_vain_and_is_back_as_it_was_is_told(state_dir: Path, tmp_path: Path) -> None:
    """As when a disk was away for less time than there is between two looks."""
    secrets = LocalSecrets(LocalSecretsSettings(state_dir=state_dir))
    reference = stored(state_dir, write(tmp_path / "a", bundle(AUTHORITY.issue("www.example.org"))))
    (told,) = secrets.list(None)
    await secrets.changes()
    (file,) = state_dir.rglob(f"{reference.removeprefix('local:')}*")
    file.rename(tmp_path / "away")
    with pytest.raises(Invalid):
        await secrets.certificate(reference, told.project_id)
    (tmp_path / "away").rename(file)
    assert await secrets.changes() == {reference}
    assert await secrets.changes() == frozenset()


def test_no_state_directory_is_made_by_a_slip(tmp_path: Path) -> None:
    assert frontinus(tmp_path / "nowhere", "list").exit_code == 1
    assert not (tmp_path / "nowhere").exists()

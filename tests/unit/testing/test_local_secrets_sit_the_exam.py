"""The local secret driver keeps every promise of its interface."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from frontinus.drivers.secret.local.driver import LocalSecrets, LocalSecretsSettings
from frontinus.model.ids import ProjectId, new_id
from frontinus.testing.exam import Check
from frontinus.testing.secret_conformance import CHECKS, SecretBench

PROJECT = ProjectId("owner")


def a_bundle() -> bytes:
    """A self-signed certificate and its key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "www.example.org")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, SHA256())
    )
    return certificate.public_bytes(Encoding.PEM) + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_local_secrets(check: Check[SecretBench], tmp_path: Path) -> None:
    secrets = LocalSecrets(LocalSecretsSettings(state_dir=tmp_path))
    broken = f"local:{new_id()}"
    (tmp_path / "secrets" / f"{broken.removeprefix('local:')}.secret").write_bytes(b"not what was written" * 9)
    await check.run(
        SecretBench(
            factory=lambda: LocalSecrets(LocalSecretsSettings(state_dir=tmp_path)),
            reference=secrets.put(a_bundle(), PROJECT),
            project_id=PROJECT,
            broken=(broken,),
        )
    )

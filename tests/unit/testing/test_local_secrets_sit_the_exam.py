"""The local secret driver keeps every promise of its interface, and so does the fake."""

from __future__ import annotations

from pathlib import Path

import pytest

from frontinus.drivers.secret.local.driver import LocalSecrets, LocalSecretsSettings
from frontinus.model.certificates import Authorities, Certificate, Revocations
from frontinus.model.ids import ProjectId, new_id
from frontinus.testing.certificates import TestAuthority, bundle
from frontinus.testing.exam import Check
from frontinus.testing.fake_secret import FakeSecrets
from frontinus.testing.secret_conformance import CHECKS, SecretBench

PROJECT = ProjectId("owner")


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_local_secrets(check: Check[SecretBench], tmp_path: Path) -> None:
    secrets = LocalSecrets(LocalSecretsSettings(state_dir=tmp_path))
    authority = TestAuthority("root")
    issuer = TestAuthority("issuer", parent=authority)
    broken = f"local:{new_id()}"
    (tmp_path / "secrets" / f"{broken.removeprefix('local:')}.secret").write_bytes(b"not what was written" * 9)
    await check.run(
        SecretBench(
            factory=lambda: LocalSecrets(LocalSecretsSettings(state_dir=tmp_path)),
            reference=secrets.put(bundle(issuer.issue("www.example.org")), PROJECT),
            project_id=PROJECT,
            authorities=secrets.put(issuer.pem + authority.pem, PROJECT),
            revocations=secrets.put(issuer.revoke(issuer.issue("old.example.org")), PROJECT),
            broken=(broken,),
        )
    )


@pytest.mark.parametrize("check", [x for x in CHECKS if x.name != "broken secret is invalid"], ids=str)
async def test_fake_secrets(check: Check[SecretBench]) -> None:
    authority = TestAuthority()
    store: dict[tuple[ProjectId, str], Certificate | Authorities | Revocations] = {
        (PROJECT, "a"): authority.issue("www.example.org"),
        (PROJECT, "b"): Authorities(certificates=(authority.pem,)),
        (PROJECT, "c"): Revocations(lists=(authority.revoke(),)),
    }
    await check.run(
        SecretBench(
            factory=lambda: FakeSecrets(store),
            reference="a",
            project_id=PROJECT,
            authorities="b",
            revocations="c",
        )
    )

"""What Barbican is asked for, with which token, and by which account; what it does is tried with the real one
(tests/integration/drivers/secret)."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from frontinus.drivers.openstack.settings import OpenStackSettings
from frontinus.drivers.secret.barbican.driver import BarbicanSecrets, BarbicanSettings
from frontinus.model.certificates import Authorities, Certificate, SecretKind
from frontinus.model.errors import Invalid
from frontinus.model.ids import LoadBalancerId, ProjectId
from frontinus.model.network import Tenant
from frontinus.model.secrets import Secret
from frontinus.testing.certificates import TestAuthority, bundle

from tests.unit.drivers.little_cloud import LittleCloud, answer

pytestmark = pytest.mark.unit

BASE = "http://barbican.example/v1"
SITE, AUTHORITIES = (f"/secrets/00000000-0000-4000-8000-00000000000{x}" for x in "12")
CONTAINER = "/containers/00000000-0000-4000-8000-000000000003"
NOWHERE = "/secrets/00000000-0000-4000-8000-000000000004"
TENANT = Tenant(project_id=ProjectId("theirs"), token=Secret("the-users-own"))


class LittleBarbican(LittleCloud):
    """Secrets that their user may read and our account may not. `asked` is who asked what: method, path, and whether it was with
    the user's token."""

    def __init__(self) -> None:
        super().__init__()
        authority = TestAuthority()
        certificate = authority.issue("www.example.org")
        self.payloads = {SITE: bundle(certificate), AUTHORITIES: authority.pem}

    def get_endpoint(self) -> str:
        return BASE

    def request(self, path: str, method: str, **words: Any) -> requests.Response:
        is_users = "auth" in words
        self.asked.append((method, path, is_users))
        place, _, more = path.removesuffix("/").partition("/payload")
        if not is_users:
            return answer({}, 403)
        if path.endswith("/payload"):
            return answer(self.payloads[place]) if place in self.payloads else answer({}, 404)
        if place == CONTAINER:
            return answer({"type": "certificate", "secret_refs": [{"name": "certificate", "secret_ref": BASE + SITE}]})
        return answer({}, 404 if not more else 500)


@pytest.mark.parametrize(
    "path, kind, expected",
    [
        pytest.param(SITE, SecretKind.CERTIFICATE, Certificate, id="a secret"),
        pytest.param(CONTAINER, SecretKind.CERTIFICATE, Certificate, id="a container"),
        pytest.param(AUTHORITIES, SecretKind.AUTHORITIES, Authorities, id="authorities"),
        pytest.param(AUTHORITIES, SecretKind.CERTIFICATE, "no private key", id="not what the field is for"),
        pytest.param(NOWHERE, SecretKind.CERTIFICATE, "does not exist", id="none"),
    ],
)
async def test_who_only_tries_is_shown_what_he_may_read_and_nothing_is_written(
    path: str, kind: SecretKind, expected: type | str
) -> None:
    barbican = LittleBarbican()
    settings = BarbicanSettings(openstack=OpenStackSettings())
    driver = BarbicanSecrets(settings, lambda _: barbican)  # type: ignore[arg-type, return-value]
    try:
        if isinstance(expected, str):
            with pytest.raises(Invalid, match=expected):
                await driver.shown_to(TENANT, kind, BASE + path)
        else:
            assert isinstance(await driver.shown_to(TENANT, kind, BASE + path), expected)
        assert {("GET", True)} == {(method, is_users) for method, _, is_users in barbican.asked}
    finally:
        await driver.close()


async def test_who_means_it_has_our_account_let_in() -> None:
    """The other side of the same: what a dry run must not do."""
    barbican = LittleBarbican()
    driver = BarbicanSecrets(BarbicanSettings(), lambda _: barbican)  # type: ignore[arg-type, return-value]
    try:
        with pytest.raises(Invalid, match=r"listener\.a_ref"):  # this one lets nobody register
            await driver.require_access(TENANT, LoadBalancerId("lb"), {BASE + SITE: "listener.a_ref"})
        assert ("POST", f"{SITE}/consumers", False) in barbican.asked
    finally:
        await driver.close()


async def test_without_a_token_of_his_own_nobody_is_shown_anything() -> None:
    driver = BarbicanSecrets(BarbicanSettings(), lambda _: LittleBarbican())  # type: ignore[arg-type, return-value]
    try:
        with pytest.raises(Invalid, match=r"api\.auth"):
            await driver.shown_to(Tenant(project_id=ProjectId("p")), SecretKind.CERTIFICATE, BASE + SITE)
    finally:
        await driver.close()

"""An entry of clouds.yaml means the same to the API as to openstacksdk, by which drivers read it; or it is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openstack.config import OpenStackConfig

from frontinus.api.identity.clouds import read_entry
from frontinus.api.identity.login import find_login
from frontinus.api.identity.settings import KeystoneSettings
from frontinus.model.errors import Invalid

pytestmark = pytest.mark.unit

URL = "http://k:5000/v3"
BY_NAME = {"auth_url": URL, "username": "u", "password": "p", "project_name": "service"}
DOMAINS = {"user_domain_name": "Default", "project_domain_name": "Default"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where all the files are looked for, and no other place is."""
    for variable in ("OS_CLIENT_CONFIG_FILE", "OS_CLIENT_SECURE_FILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, entry: object, secure: object = None, public: object = None) -> None:
    (folder / "clouds.yaml").write_text(json.dumps({"clouds": {"here": entry}}))
    if secure is not None:
        (folder / "secure.yaml").write_text(json.dumps({"clouds": {"here": secure}}))
    if public is not None:
        (folder / "clouds-public.yaml").write_text(json.dumps({"public-clouds": {"ours": public}}))


def as_openstacksdk_has_it(folder: Path) -> tuple[dict[str, str], bool | str | None]:
    files = ([str(folder / f"{x}.yaml")] for x in ("clouds", "clouds-public", "secure"))
    clouds, vendors, secure = files
    config = OpenStackConfig(config_files=clouds, vendor_files=vendors, secure_files=secure, load_envvars=False)
    region = config.get_one(cloud="here")
    auth = {x: str(y) for x, y in region.config["auth"].items() if y is not None}
    return auth, region.get_requests_verify_args()[0]


@pytest.mark.parametrize(
    "entry, secure, public",
    [
        pytest.param({"auth": {**BY_NAME, **DOMAINS}}, None, None, id="by names"),
        pytest.param(
            {"auth": {"auth_url": URL, "user_id": "1", "password": "p", "project_id": "2"}}, None, None, id="by ids"
        ),
        pytest.param(
            {"auth": {**BY_NAME, "user_domain_id": "d1", "project_domain_id": "d2"}}, None, None, id="domains by ids"
        ),
        pytest.param({"auth": {**BY_NAME, "domain_name": "d"}}, None, None, id="one domain for both"),
        pytest.param({"auth": {**BY_NAME, "domain_id": "d"}}, None, None, id="one domain for both, by its id"),
        pytest.param({"auth": {"auth_url": URL}, "username": "u"}, {"auth": {"password": "p"}}, None, id="secure.yaml"),
        pytest.param(
            {"auth": BY_NAME, "project_domain_name": "d", "user_domain_name": "e"}, None, None, id="beside auth"
        ),
        pytest.param({"auth": {**BY_NAME, **DOMAINS}, "verify": False}, None, None, id="not verified"),
        pytest.param({"auth": {**BY_NAME, **DOMAINS}, "insecure": True}, None, None, id="insecure"),
        pytest.param({"auth": {**BY_NAME, **DOMAINS}, "cacert": "/ca.pem"}, None, None, id="authorities"),
        pytest.param(
            {"profile": "ours", "auth": {"username": "u", "password": "p", "project_name": "s", **DOMAINS}},
            None,
            {"auth": {"auth_url": URL}, "cacert": "/ca.pem"},
            id="profile",
        ),
        pytest.param(
            {
                "auth_type": "v3applicationcredential",
                "auth": {
                    "auth_url": URL,
                    "application_credential_id": "a",
                    "application_credential_secret": "s",
                },
            },
            None,
            None,
            id="application credential",
        ),
    ],
)
def test_it_is_read_as_openstacksdk_reads_it(folder: Path, entry: object, secure: object, public: object) -> None:
    write(folder, entry, secure, public)
    auth, verify = as_openstacksdk_has_it(folder)
    found = read_entry("here")
    assert found.auth == auth
    assert (str(found.ca_file) if found.verify and found.ca_file else found.verify) == verify


@pytest.mark.parametrize(
    "entry, told",
    [
        pytest.param(
            {"auth": BY_NAME, "profile": "nowhere"}, "profile 'nowhere'", id="a profile of openstacksdk's own"
        ),
        pytest.param({"auth": BY_NAME, "auth_type": "v3oidcpassword"}, "v3oidcpassword", id="another way to log in"),
        pytest.param({"auth": {"auth_url": URL, "token": "t"}}, "token", id="a token"),
        pytest.param({"auth": {**BY_NAME, "system_scope": "all"}}, "system_scope", id="no project"),
        pytest.param({}, "auth", id="nothing"),
    ],
)
def test_what_only_openstacksdk_can_is_refused_by_name(folder: Path, entry: object, told: str) -> None:
    write(folder, entry)
    with pytest.raises(Invalid, match=told) as refusal:
        read_entry("here")
    assert refusal.value.field == "api.keystone.cloud"


def _scope(login: Any) -> Any:
    return login["auth"].get("scope", {}).get("project")


@pytest.mark.parametrize(
    "auth, user, project",
    [
        pytest.param(
            BY_NAME,
            {"name": "u", "domain": {"name": "Default"}, "password": "p"},
            {"name": "service", "domain": {"name": "Default"}},
            id="names",
        ),
        pytest.param(
            {"auth_url": URL, "user_id": "1", "password": "p", "project_id": "2"},
            {"id": "1", "password": "p"},
            {"id": "2"},
            id="ids",
        ),
        pytest.param(
            {**BY_NAME, "user_domain_id": "d1", "default_domain_id": "d2"},
            {"name": "u", "domain": {"id": "d1"}, "password": "p"},
            {"name": "service", "domain": {"id": "d2"}},
            id="domains by ids",
        ),
    ],
)
def test_keystone_is_told_who_we_are(folder: Path, auth: object, user: object, project: object) -> None:
    """Identity API v3, POST /auth/tokens: a user or project by its id, or by a name in a domain."""
    write(folder, {"auth": auth, "verify": False})
    login = find_login(KeystoneSettings(cloud="here"))
    document = json.loads(login.request.reveal())
    assert document["auth"]["identity"]["password"]["user"] == user
    assert _scope(document) == project
    assert not login.verify


def test_settings_go_before_the_entry_whole(folder: Path) -> None:
    """A name that is set is not outdone by the entry's id."""
    write(folder, {"auth": {"auth_url": URL, "user_id": "1", "password": "p", "project_id": "2", **DOMAINS}})
    settings = KeystoneSettings(cloud="here", username="me", project_name="mine", ca_file=Path("/own.pem"))
    login = find_login(settings)
    document = json.loads(login.request.reveal())
    assert document["auth"]["identity"]["password"]["user"]["name"] == "me"
    assert _scope(document)["name"] == "mine"
    assert (login.ca_file, login.verify) == (Path("/own.pem"), True)


def test_an_application_credential_may_be_named(folder: Path) -> None:
    auth = {"auth_url": URL, "application_credential_name": "a", "application_credential_secret": "s", "user_id": "1"}
    write(folder, {"auth": auth})
    document = json.loads(find_login(KeystoneSettings(cloud="here")).request.reveal())
    credential = {"name": "a", "secret": "s", "user": {"id": "1"}}
    assert document["auth"]["identity"] == {"methods": ["application_credential"], "application_credential": credential}


def test_passwords_do_not_print_themselves(folder: Path) -> None:
    write(folder, {"auth": {**BY_NAME, "password": "hush-hush"}})
    assert "hush-hush" not in repr(read_entry("here"))

"""Settings are strict: what is misspelt or of the wrong type is refused by name."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from frontinus.drivers.amphora.haproxy.settings import HaproxySettings
from frontinus.main import Drivers, check
from frontinus.model.errors import Invalid
from frontinus.settings import describe, load

pytestmark = pytest.mark.unit


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "frontinus.toml"
    file.write_text(text)
    return file


def test_file_and_overrides_are_joined_key_by_key(tmp_path: Path) -> None:
    file = written(
        tmp_path, '[api]\nbind_port = 1234\n[controller]\nlease_duration = 2.5\n[drivers]\namphora = "noop"\n'
    )
    settings = load(file, {"api": {"bind_host": "127.0.0.2"}, "state_dir": str(tmp_path)})
    assert (settings.api.bind_host, settings.api.bind_port) == ("127.0.0.2", 1234)
    assert settings.controller.lease_duration == timedelta(seconds=2.5)
    assert settings.drivers.amphora == "noop"
    assert settings.database_url == f"sqlite:///{tmp_path}/frontinus.sqlite"


@pytest.mark.parametrize(
    "text,key",
    [
        pytest.param("stat_dir = 'x'", "stat_dir", id="misspelt"),
        pytest.param("[api]\nbind_prot = 1", "api.bind_prot", id="misspelt below a table"),
        pytest.param("[api]\nbind_port = 'x'", "api.bind_port", id="text for a number"),
        pytest.param("[api]\nbind_port = true", "api.bind_port", id="truth for a number"),
        pytest.param("[controller]\nlease_duration = '5s'", "controller.lease_duration", id="text for a duration"),
        pytest.param("[controller]\nlease_duration = -1", "controller.lease_duration", id="negative duration"),
        pytest.param("api = 3", "api", id="a number for a table"),
        pytest.param("[log]\nlevel = 'loud'", "log.level", id="none of the choices"),
        pytest.param("drivers = {amphora = ['haproxy', 'noop']}", "drivers.amphora", id="two amphora drivers"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(Invalid) as error:
        load(written(tmp_path, text))
    assert error.value.field == key


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="not TOML"):
        load(written(tmp_path, "= ="))
    with pytest.raises(Invalid, match="cannot be read"):
        load(tmp_path / "absent.toml")


def test_secrets_are_not_described() -> None:
    described = dict(
        describe(HaproxySettings(state_dir=Path("/x"), accept_plain=True, plain_heartbeat_key="hunter2"), "haproxy.")
    )
    assert described["haproxy.plain_heartbeat_key"] == "(hidden)"
    assert described["haproxy.server_certificate_validity"] == "2592000 s"


@pytest.mark.parametrize(
    "text,key",
    [
        pytest.param("[api]\nbind_port = 70000", "api.bind_port", id="no port"),
        pytest.param("[health]\nbind_port = -1", "health.bind_port", id="no port for heartbeats"),
        pytest.param("[api]\nbind_host = '0.0.0.0'", "api.bind_host", id="open to everyone"),
        pytest.param("[drivers]\namphora = 'absent'", "drivers.amphora", id="no such driver"),
        pytest.param("[driver_options.absent]\nx = 1", "driver_options.absent", id="options of no driver"),
        pytest.param("[driver_options]\nhaproxy = 1", "driver_options.haproxy", id="options that are no table"),
        pytest.param(
            "[driver_options.haproxy]\nthreds = 1", "driver_options.haproxy.threds", id="misspelt for a driver"
        ),
        pytest.param(
            "[driver_options.haproxy]\nthreads = 0", "driver_options.haproxy.threads", id="refused by its driver"
        ),
        pytest.param(
            "[driver_options.haproxy]\ntenant_log_targets = ['here']",
            "driver_options.haproxy.tenant_log_targets",
            id="no receiver of logs",
        ),
    ],
)
def test_what_cannot_work_together_is_named(tmp_path: Path, text: str, key: str) -> None:
    settings = load(written(tmp_path, text), {"state_dir": str(tmp_path / "state")})
    with pytest.raises(Invalid) as error:
        check(settings)
    assert error.value.field == key
    assert not (tmp_path / "state").exists()


def test_a_driver_that_refuses_its_settings_is_told_where_they_stand(tmp_path: Path) -> None:
    settings = load(written(tmp_path, "[driver_options.haproxy]\nthreads = 0"), {"state_dir": str(tmp_path / "state")})
    with pytest.raises(Invalid) as error:
        _ = Drivers(settings, 5555).amphora
    assert error.value.field == "driver_options.haproxy.threads"


def test_description_names_every_leaf_in_units() -> None:
    described = dict(describe(load(None)))
    assert described["controller.lease_duration"] == "5 s"
    assert described["drivers.amphora"] == "haproxy"


@pytest.mark.parametrize(
    "url,shown",
    [
        pytest.param("postgresql://me:s3cret@db.example/lb", "postgresql://me:(hidden)@db.example/lb", id="plain"),
        pytest.param("mariadb://me:s3@cr/et@[::1]:3306/lb", "mariadb://me:(hidden)@[::1]:3306/lb", id="not encoded"),
        pytest.param(
            "postgresql://db/lb?user=me&password=s3cret&x=1",
            "postgresql://db/lb?user=me&password=(hidden)&x=1",
            id="behind",
        ),
        pytest.param("postgresql://me@db/lb", "postgresql://me@db/lb", id="none"),
        pytest.param("sqlite:////srv/a@b:c/lb.sqlite", "sqlite:////srv/a@b:c/lb.sqlite", id="a file"),
        pytest.param("", "(not set)", id="nothing"),
    ],
)
def test_the_password_of_the_database_is_not_described(tmp_path: Path, url: str, shown: str) -> None:
    settings = load(written(tmp_path, f"database = '{url}'"))
    assert dict(describe(settings))["database"] == shown
    assert "s3" not in repr(settings)


@pytest.mark.parametrize(
    "text,key",
    [
        pytest.param("database = 'oracle://db/x'", "database", id="an engine that is not served"),
        pytest.param("database = 'mariadb://db/x?charset=latin1'", "database", id="an option that is not known"),
        pytest.param("database_connections = 0", "database_connections", id="no connection"),
    ],
)
def test_a_database_that_cannot_be_is_refused(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(Invalid) as error:
        check(load(written(tmp_path, text), {"state_dir": str(tmp_path / "state")}))
    assert error.value.field == key

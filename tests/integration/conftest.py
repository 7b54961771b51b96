"""Which engine a test runs on.

`database_url` is an empty, migrated database. Tests that ask for it, or for a store or world on it, run on SQLite every
day, and on PostgreSQL and MariaDB too where they are marked `engines`; the rest runs there with the long ones. Tests that
look into the SQLite file (`database`) run on SQLite only."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from frontinus.store.engine import Store

from tests.servers import SERVERS, Server, empty, serving

ENGINES = ("sqlite", *SERVERS)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine" not in metafunc.fixturenames:
        return
    if "database" in metafunc.fixturenames:
        metafunc.parametrize("engine", ["sqlite"], ids=[""], indirect=True)
        return
    everyday = metafunc.definition.get_closest_marker("engines") is not None
    rare = () if everyday else (pytest.mark.long,)
    values = ["sqlite", *(pytest.param(name, marks=rare) for name in SERVERS)]
    metafunc.parametrize("engine", values, indirect=True)


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def server_of() -> Iterator[Callable[[str], Server]]:
    """Servers, started when they are first asked for."""
    with contextlib.ExitStack() as stack:
        running: dict[str, Server] = {}

        def find(name: str) -> Server:
            if name not in running:
                running[name] = stack.enter_context(serving(name))
            return running[name]

        yield find


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Migrating takes longer than most tests, so it is done once and its outcome copied."""
    file = tmp_path_factory.mktemp("migrated") / "frontinus.sqlite"
    _upgrade(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def migrated_of(server_of: Callable[[str], Server]) -> Callable[[str], str]:
    """The URL of the one database on that server that tests take turns on."""
    made: dict[str, str] = {}

    def find(name: str) -> str:
        if name not in made:
            made[name] = server_of(name).make_database("frontinus")
            _upgrade(made[name])
        return made[name]

    return find


@pytest.fixture
def database(migrated: Path, tmp_path: Path) -> Path:
    """An SQLite file."""
    return Path(shutil.copy(migrated, tmp_path / "frontinus.sqlite"))


@pytest.fixture
def database_url(
    request: pytest.FixtureRequest, engine: str, server_of: Callable[[str], Server], migrated_of: Callable[[str], str]
) -> str:
    if engine == "sqlite":
        return f"sqlite:///{request.getfixturevalue('database')}"
    url = migrated_of(engine)
    empty(server_of(engine), "frontinus")
    return url


def _upgrade(url: str) -> None:
    store = Store.open(url)
    store.upgrade()
    asyncio.run(store.close())

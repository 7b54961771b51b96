"""What a provider can do stays known while its controller is away, and a cohort has one configuration."""

from __future__ import annotations

from datetime import timedelta

import pytest

from frontinus.model.capabilities import Capabilities
from frontinus.model.cohorts import SILENT_AFTER
from frontinus.model.enums import LbAlgorithm, ListenerProtocol, Topology
from frontinus.model.errors import Conflict, NotFound
from frontinus.model.ids import ControllerId, new_id
from frontinus.store import cohorts, controllers
from frontinus.store.controllers import Controller
from frontinus.store.engine import Store

from tests.integration.store.world import NOW

pytestmark = pytest.mark.integration

RICH = Capabilities(
    topologies=frozenset(Topology),
    listener_protocols=frozenset({ListenerProtocol.HTTP, ListenerProtocol.TCP}),
    lb_algorithms=frozenset(LbAlgorithm),
    features=frozenset({"backup", "insert_headers"}),
)


async def _register(
    store: Store,
    capabilities: Capabilities,
    *,
    provider: str = "amphora",
    started: timedelta = timedelta(),
    version: str = "0.1.0",
    host: str = "here",
    settings: dict[str, str] | None = None,
) -> ControllerId:
    arrived = Controller(
        id=ControllerId(new_id()),
        driver="haproxy",
        driver_version=version,
        host=host,
        pid=7,
        capabilities=capabilities,
        provider=provider,
        started_at=NOW + started,
        seen_at=NOW + started,
        config_digest=None if settings is None else repr(settings),
        configuration=settings,
    )
    await store.transact(lambda tx: controllers.register(tx, arrived))
    return arrived.id


async def _capabilities(store: Store, provider: str = "amphora") -> Capabilities | None:
    return await store.read(lambda tx: controllers.capabilities_of(tx, provider))


async def test_capabilities_come_back_as_published(store: Store) -> None:
    assert await _capabilities(store) is None
    await _register(store, RICH)
    assert await _capabilities(store) == RICH
    assert await _capabilities(store, "another") is None


async def test_the_newest_controller_says_what_can_be_done(store: Store) -> None:
    await _register(store, RICH, started=timedelta(seconds=2))
    await _register(store, Capabilities(), started=timedelta(seconds=1))
    assert await _capabilities(store) == RICH
    (cohort,) = await store.read(cohorts.all_cohorts)
    assert cohort.capabilities == Capabilities()  # of one version, the last to register


async def test_a_stopped_controller_leaves_its_capabilities_until_the_next_one(store: Store) -> None:
    stopped = await _register(store, RICH)
    await store.transact(lambda tx: controllers.unregister(tx, stopped))
    assert await _capabilities(store) == RICH
    await _register(store, Capabilities(), started=timedelta(seconds=1))
    assert await _capabilities(store) == Capabilities()
    with pytest.raises(NotFound):  # forgotten
        await store.transact(lambda tx: controllers.keep_alive(tx, stopped, NOW))


async def test_one_that_was_silent_for_a_day_is_forgotten_one_that_speaks_is_not(store: Store) -> None:
    silent, speaking = await _register(store, RICH), await _register(store, RICH)
    tomorrow = timedelta(days=1, seconds=1)
    await store.transact(lambda tx: controllers.keep_alive(tx, speaking, NOW + tomorrow / 2))
    await _register(store, RICH, started=tomorrow)
    await store.transact(lambda tx: controllers.keep_alive(tx, speaking, NOW + tomorrow))
    with pytest.raises(NotFound):
        await store.transact(lambda tx: controllers.keep_alive(tx, silent, NOW + tomorrow))


async def test_providers_are_named_once_in_order(store: Store) -> None:
    for provider in ("octavia", "amphora", "amphora"):
        await _register(store, RICH, provider=provider)
    assert await store.read(controllers.providers) == ["amphora", "octavia"]


@pytest.mark.engines
@pytest.mark.parametrize(
    "theirs, ours, named",
    [
        pytest.param({"a": "1", "b": "2"}, {"a": "1", "b": "2"}, None, id="the same"),
        pytest.param({"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "9", "d": "4"}, ("b", "c", "d"), id="others"),
        pytest.param(None, {"a": "1"}, None, id="a version that told none"),
    ],
)
async def test_a_cohort_has_one_configuration(
    store: Store, theirs: dict[str, str] | None, ours: dict[str, str], named: tuple[str, ...] | None
) -> None:
    await _register(store, RICH, host="first", settings=theirs)
    if named is None:
        await _register(store, RICH, host="second", settings=ours)
        return
    with pytest.raises(Conflict) as refused:
        await _register(store, Capabilities(), host="second", settings=ours)
    assert all(x in str(refused.value) for x in ("first", "second", "process 7", "haproxy 0.1.0", ", ".join(named)))
    assert await _capabilities(store) == RICH
    assert [x.host for x in await store.read(controllers.running)] == ["first"]


@pytest.mark.parametrize("gone", ["stopped", "silent", "of another version"])
async def test_another_configuration_is_taken_when_nobody_has_the_old_one(store: Store, gone: str) -> None:
    version = "0.0.9" if gone == "of another version" else "0.1.0"
    first = await _register(store, RICH, host="first", settings={"a": "1"}, version=version)
    if gone == "stopped":
        await store.transact(lambda tx: controllers.unregister(tx, first))
    started = SILENT_AFTER if gone == "silent" else timedelta(seconds=1)
    await _register(store, RICH, host="second", settings={"a": "2"}, started=started)
    assert "second" in {x.host for x in await store.read(controllers.running)}

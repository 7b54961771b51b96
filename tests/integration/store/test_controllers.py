"""What a provider can do stays known while its controller is away."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from frontinus.model.capabilities import Capabilities
from frontinus.model.enums import LbAlgorithm, ListenerProtocol, Topology
from frontinus.model.errors import NotFound
from frontinus.model.ids import ControllerId, new_id
from frontinus.store import controllers, convergence, leases
from frontinus.store.controllers import Controller
from frontinus.store.engine import Store

from tests.integration.store.world import LATER, NOW, a_fault, a_tree, claim, claim_one, create

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
) -> ControllerId:
    arrived = Controller(
        id=ControllerId(new_id()),
        driver="haproxy",
        driver_version=version,
        host="here",
        pid=7,
        capabilities=capabilities,
        provider=provider,
        started_at=NOW + started,
        seen_at=NOW + started,
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


@pytest.mark.parametrize(
    "claimed, version, provider",
    [
        pytest.param(1, "0.2.0", "amphora", id="another version may carry it"),
        pytest.param(0, "0.1.0", "amphora", id="the same one cannot"),
        pytest.param(0, "0.2.0", "another", id="another provider has no part in it"),
    ],
)
async def test_a_fault_that_waits_for_the_user_is_judged_anew_by_a_new_driver(
    store: Store, claimed: int, version: str, provider: str
) -> None:
    await _register(store, RICH)
    await create(store, a_tree())
    lease = await claim_one(store)
    fault = replace(a_fault(), permanent=True, retry_at=None)
    await store.transact(lambda tx: convergence.record_fault(tx, lease, fault, LATER, report_error=True))
    await store.transact(lambda tx: leases.release(tx, lease))
    assert await claim(store) == []
    await _register(store, RICH, provider=provider, version=version, started=timedelta(seconds=1))
    assert len(await claim(store)) == claimed

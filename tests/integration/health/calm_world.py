"""Two hundred simulated amphorae with a real ear and a real controller; database, clock and receiver can be taken away."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

from prometheus_client import CollectorRegistry

from frontinus.controller.hands import Hands
from frontinus.controller.loop import Controller
from frontinus.controller.settings import ControllerSettings
from frontinus.drivers.amphora.agent.heartbeat import claimed_sender, decode_envelope, decode_plain, is_envelope
from frontinus.health.loop import Health
from frontinus.health.metrics import HealthMetrics
from frontinus.health.settings import HealthSettings
from frontinus.model.errors import Retry
from frontinus.model.heartbeat import Heartbeat
from frontinus.model.ids import AmphoraId, LoadBalancerId
from frontinus.store import health, receivers
from frontinus.store.engine import Store, Transaction, Wakeups
from frontinus.testing.fake_amphora import FakeAmphoraDriver
from frontinus.testing.fake_compute import FakePlace
from frontinus.testing.simulated_amphorae import Crowd, SimulatedAmphora

from tests.integration.controller.world import World

_T = TypeVar("_T")


def key_of(amphora_id: str) -> bytes:
    return hmac.digest(b"the master key of these tests", amphora_id.encode(), "sha256")


class HeardDriver(FakeAmphoraDriver):
    """The fake, with the ear of our own driver. Agents of those in `deaf` do not answer."""

    def __init__(self, places: dict[AmphoraId, FakePlace]) -> None:
        super().__init__(places)
        self.deaf: set[AmphoraId] = set()
        self.plain_key: bytes | None = None
        self.prefixes: tuple[bytes, ...] = ()

    @property
    def heartbeat_prefixes(self) -> tuple[bytes, ...]:
        return self.prefixes

    def claimed_sender(self, datagram: bytes) -> AmphoraId | None:
        return claimed_sender(datagram)

    def decode(self, datagram: bytes, now: datetime) -> Heartbeat:
        if self.plain_key is not None and not is_envelope(datagram):
            return decode_plain(datagram, self.plain_key)
        return decode_envelope(datagram, key_of)

    async def info(self, amphora: Any, tree: Any) -> Any:
        if amphora.id in self.deaf:
            raise Retry("no way to the agent", after=0.1, code="agent-unreachable")
        return await super().info(amphora, tree)


class FickleStore:
    """The store, until it is away."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.away = False

    async def transact(self, work: Callable[[Transaction], _T]) -> _T:
        self._require()
        return await self._store.transact(work)

    async def read(self, work: Callable[[Transaction], _T]) -> _T:
        self._require()
        return await self._store.read(work)

    def wakeups(self) -> Wakeups:
        return self._store.wakeups()

    def _require(self) -> None:
        if self.away:
            raise Retry("the database is away", after=1.0, code="database-unavailable")


@dataclass(frozen=True)
class Pace:
    """How fast time goes: everything in heartbeat intervals."""

    interval: float

    def health(self) -> HealthSettings:
        one = timedelta(seconds=self.interval)
        return HealthSettings(
            bind_port=0,
            silence_deadline=3 * one,
            suspect_again_after=10 * one,
            check_interval=one / 4,
            flush_interval=one,
            fleet_interval=one,
            seen_interval=5 * one,
            share_interval=one / 2,
        )

    def controller(self) -> ControllerSettings:
        one = timedelta(seconds=self.interval)
        return ControllerSettings(
            hang_deadline=10 * one,
            poll_interval=one,
            witness_interval=3 * one,
            unheard_after=8 * one,
            lease_duration=timedelta(seconds=5),
        )


class CalmWorld(World):
    """`start` it, let things happen, and ask who was replaced."""

    def __init__(self, directory: Path, pace: Pace) -> None:
        super().__init__(directory)
        self.pace = pace
        self.fickle = FickleStore(self.store)
        self.jump = timedelta(0)
        self.driver = HeardDriver(self.places)
        self.crowd: Crowd
        self.at_first: frozenset[AmphoraId] = frozenset()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._registries: dict[Health, CollectorRegistry] = {}

    def clock(self) -> datetime:
        return datetime.now(UTC) + self.jump

    async def start(self, count: int, *, sends: bool = True) -> None:
        """So many amphorae; without `sends` somebody else speaks for them."""
        self.now = datetime.now(UTC)
        await self.register()
        for _ in range(count):
            await self.create(80)
        await self.converge(max(count, 60))
        self.now = datetime.now(UTC)
        self.at_first = frozenset(self.places)
        amphorae = [SimulatedAmphora(x, key_of(x)) for x in self.places]
        self.start_receiver()
        self.crowd = Crowd(amphorae, ("127.0.0.1", self.ear.receiver.port), interval=self.pace.interval)
        if sends:
            self._tasks["crowd"] = asyncio.create_task(self.crowd.run())
        hands = Hands(
            store=cast(Any, self.fickle),
            amphora_driver=self.driver,
            compute=self.hands.compute,
            network=self.network,
            secret=self.secrets,
            settings=self.pace.controller(),
            now=self.clock,
        )
        controller = Controller(hands, ("amphora",))
        await controller.register()
        self._tasks["controller"] = asyncio.create_task(controller.run())

    def start_receiver(self, port: int = 0) -> None:
        settings = self.pace.health()
        if port:
            settings = HealthSettings(**{**settings.__dict__, "bind_port": port})
        self.ear = self._receiver(settings)
        self._tasks["ear"] = asyncio.create_task(self.ear.run())

    def _receiver(self, settings: HealthSettings) -> Health:
        registry = CollectorRegistry()
        made = Health(cast(Any, self.fickle), self.driver, settings, self.clock, HealthMetrics(registry))
        self._registries[made] = registry
        return made

    def accepted(self, ear: Health) -> float:
        """How many datagrams this receiver has taken in."""
        return self._registries[ear].get_sample_value("frontinus_health_datagrams_accepted_total") or 0.0

    def refused(self, ear: Health, reason: str) -> float:
        """How many datagrams this receiver has refused for this reason."""
        name = "frontinus_health_datagrams_refused_total"
        return self._registries[ear].get_sample_value(name, {"reason": reason}) or 0.0

    def start_second_receiver(self) -> Health:
        """Amphorae send to both in turn from now on."""
        second = self._receiver(self.pace.health())
        self._tasks["second ear"] = asyncio.create_task(second.run())
        self.crowd.destinations.append(("127.0.0.1", second.receiver.port))
        return second

    async def stop_second_receiver(self) -> None:
        """Amphorae go on to send there too."""
        await self._end("second ear")

    async def stop_receiver(self) -> int:
        """It ends as a process that is stopped; the port that it had."""
        port = self.ear.receiver.port
        await self._end("ear")
        return port

    async def stop(self) -> None:
        for name in list(self._tasks):
            await self._end(name)
        await self.store.close()

    async def _end(self, name: str) -> None:
        task = self._tasks.pop(name)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def intervals(self, count: float) -> None:
        """So many heartbeats' time goes by."""
        await asyncio.sleep(count * self.pace.interval)

    def replaced(self) -> frozenset[AmphoraId]:
        return self.at_first - frozenset(self.places)

    def started_again(self) -> set[AmphoraId]:
        return {x for x, place in self.places.items() if place.starts != 1}

    async def suspects(self) -> set[AmphoraId]:
        return {x.amphora_id for x in await self.store.read(health.fleet) if x.suspected_at is not None}

    async def is_braked(self) -> bool:
        return any(x.braked for x in await self.store.read(receivers.all_receivers))

    async def load_balancer_of(self, amphora_id: AmphoraId) -> LoadBalancerId:
        fleet = await self.store.read(health.fleet)
        return next(x.load_balancer_id for x in fleet if x.amphora_id == amphora_id)

"""The only place where settings, drivers and loops are joined.

Everything is built here once and handed down; nothing below asks for a global. `Installation` is one process with the
API, a controller and a health receiver in it, or with one of them; cli/ starts it."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import timedelta
from enum import StrEnum
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import structlog
from prometheus_client import CollectorRegistry, Gauge, start_http_server

from frontinus.controller.hands import Hands
from frontinus.controller.loop import Controller
from frontinus.controller.metrics import ControllerMetrics
from frontinus.drivers.amphora.interface import AmphoraDriver
from frontinus.drivers.compute.interface import ATTACH, LVS, ComputeDriver
from frontinus.drivers.network.interface import PORTS, NetworkDriver
from frontinus.drivers.secret.interface import SecretDriver
from frontinus.health.loop import Health
from frontinus.health.metrics import HealthMetrics
from frontinus.health.settings import HealthSettings
from frontinus.loading import DRIVER_KINDS, build, choose, load, offers
from frontinus.model.errors import Bug, Invalid, Retry
from frontinus.settings import MetricsSettings, Settings, digests
from frontinus.store import idempotency, leases
from frontinus.store.clock import SharedClock, own_clock
from frontinus.store.engine import Store

if TYPE_CHECKING:
    from frontinus.front import Front

log = structlog.get_logger()

PROVIDERS = ("amphora", "octavia")
"""The provider names under which the amphora driver is offered, as in Octavia (`octavia` is its old alias)."""


MOST_SPARES = 1_000

DATABASE_PATIENCE_S = 20.0
DATABASE_PAUSE_S = 1.0
"""For how long the start of a part waits for its database, and how often it looks."""


def shared_clock(store: Store, registry: CollectorRegistry) -> SharedClock:
    """The clock of the whole process, with how far it is off among its metrics."""
    clock = SharedClock(store)
    gauge = Gauge(
        "frontinus_clock_ahead_seconds",
        "How far this host's clock is ahead of the database's, by which all go.",
        registry=registry,
    )
    gauge.set_function(clock.seconds_ahead)
    return clock


class Part(StrEnum):
    """What an installation consists of. One process runs all of them (`frontinus up`) or one; they share the store."""

    API = "api"
    CONTROLLER = "controller"
    HEALTH = "health"


def check(settings: Settings, parts: Collection[Part] = tuple(Part)) -> dict[str, object]:
    """Judge everything that these parts need and that can be judged without touching the machine. Raises Invalid naming the setting in dotted
    form; else the settings of the chosen drivers by driver name, as they would be built."""
    for key, port in (
        ("api.bind_port", settings.api.bind_port),
        ("health.bind_port", settings.health.bind_port),
        ("metrics.bind_port", settings.metrics.bind_port),
    ):
        if not 0 <= port <= 65_535:
            raise Invalid(key, f"must be from 0 to 65535, not {port}")
    if settings.controller.spares is not None and not 0 <= settings.controller.spares <= MOST_SPARES:
        raise Invalid("controller.spares", f"must be from 0 to {MOST_SPARES}, not {settings.controller.spares}")
    for number, each in enumerate(settings.controller.spares_of):
        if not 0 <= each.count <= MOST_SPARES:
            raise Invalid(f"controller.spares_of[{number}].count", f"must be from 0 to {MOST_SPARES}, not {each.count}")
        if not (each.flavor or each.availability_zone):
            raise Invalid(f"controller.spares_of[{number}].flavor", "name a flavor, an availability zone, or both")
    if settings.database_connections < 1:
        raise Invalid("database_connections", f"must be at least 1, not {settings.database_connections}")
    if settings.database and not settings.database.startswith("sqlite:"):
        Store.open(settings.database_url)  # connects to nothing yet; an SQLite file would get its directory made
    settings.openstack.check()
    if Part.API in parts:
        # Here and below: imported by who serves the API only. It is more than half of what a controller would load, and
        # what is started again after a death should be there soon.
        from frontinus import front

        front.check(settings.api, own_clock)
    installed = {x.name for kind in DRIVER_KINDS.values() for x in offers(kind)}
    _check_allowed(settings)
    for name, written in settings.driver_options.items():
        if name not in installed:
            raise Invalid(
                f"driver_options.{name}", f"no driver has this name; installed: {', '.join(sorted(installed))}"
            )
        if not isinstance(written, Mapping):
            raise Invalid(f"driver_options.{name}", "must be a table")
    context = _context(settings, settings.health.bind_port)
    found: dict[str, object] = {}
    chosen: dict[str, Any] = {}
    for kind in DRIVER_KINDS:
        name = getattr(settings.drivers, kind)
        driver_class, driver_settings = choose(kind, name, settings, context)
        if driver_settings is not None:
            found[name] = driver_settings
        chosen[kind] = driver_class
    _check_ports(settings, chosen["compute"], chosen["network"])
    return found


def _check_allowed(settings: Settings) -> None:
    """Raise Invalid for a name in drivers.allow_experimental that no installed driver has: it is misspelled, or stale."""
    known = {x.name for kind in DRIVER_KINDS.values() for x in offers(kind) if not x.is_ours}
    for name in settings.drivers.allow_experimental:
        if name not in known:
            installed = f"installed: {', '.join(sorted(known))}" if known else "none is installed"
            raise Invalid("drivers.allow_experimental", f"{name!r} is no driver of another distribution; {installed}")


def _check_ports(settings: Settings, compute_class: type[ComputeDriver], network_class: type[NetworkDriver]) -> None:
    """Raise Invalid when compute attaches ports that nobody makes, or others than are made, or nobody attaches those that
    network makes."""
    compute, network = settings.drivers.compute, settings.drivers.network
    attaches, makes_ports = ATTACH in compute_class.features, PORTS in network_class.features
    if makes_ports and not attaches:
        raise Invalid("drivers.compute", f"{compute!r} cannot attach the ports that network driver {network!r} makes")
    if attaches and not makes_ports:
        raise Invalid("drivers.network", f"{network!r} makes no ports, which compute driver {compute!r} needs")
    wanted, made = compute_class.attaches, network_class.hangs_on
    if attaches and None not in (wanted, made) and wanted != made:
        raise Invalid(
            "drivers.network",
            f"compute driver {compute!r} attaches ports of {wanted!r}, and those of network driver {network!r} are of {made!r}",
        )


class Drivers:
    """One of each kind, each built when it is first asked for: a process loads no driver that it does not need.

    Asking raises Invalid naming the setting that cannot be."""

    def __init__(self, settings: Settings, health_port: int) -> None:
        self._settings = settings
        self._context = _context(settings, health_port)
        self._built: dict[str, Any] = {}

    @property
    def amphora(self) -> AmphoraDriver:
        driver: AmphoraDriver = self._one("amphora")
        return driver

    @property
    def compute(self) -> ComputeDriver:
        driver: ComputeDriver = self._one("compute")
        return driver

    @property
    def network(self) -> NetworkDriver:
        driver: NetworkDriver = self._one("network")
        return driver

    @property
    def secret(self) -> SecretDriver:
        driver: SecretDriver = self._one("secret")
        return driver

    def _one(self, kind: str) -> Any:
        if kind not in self._built:
            name = getattr(self._settings.drivers, kind)
            self._built[kind] = build(kind, name, self._settings, self._context)
        return self._built[kind]

    def configuration(self) -> dict[str, str]:
        """A digest of each setting that all controllers of a cohort must share, by its key in the configuration file: who
        the drivers beside the amphora driver are, and what is rendered or built otherwise because of a setting."""
        found: dict[str, str] = {}
        for kind in DRIVER_KINDS:
            name = getattr(self._settings.drivers, kind)
            if kind != "amphora":
                found[f"drivers.{kind}"] = name
            _, settings = choose(kind, name, self._settings, self._context)
            if settings is not None:
                found |= digests(settings, f"driver_options.{name}.")
        return found

    async def close(self) -> None:
        for driver in self._built.values():
            await driver.close()


def _context(settings: Settings, health_port: int) -> dict[str, Any]:
    """What this installation knows and a driver may want to: given under these names, where its settings have them."""
    interval = settings.health.silence_deadline / 3
    network, compute = (
        load(DRIVER_KINDS[kind], getattr(settings.drivers, kind), settings.drivers.allow_experimental)
        for kind in ("network", "compute")
    )
    heard_at = settings.health.bind_host
    has_ports = PORTS in network.features
    if has_ports:
        heard_at = _management_address(settings) or heard_at
    return {
        # To an amphora driver: whether the kernel of an amphora may carry datagrams.
        "datagram_balancer": "lvs" if LVS in compute.features else "nginx",
        "state_dir": settings.state_dir,
        # To drivers that ask a service of OpenStack.
        "openstack": settings.openstack,
        "heartbeat_destinations": (f"{_bracketed(heard_at)}:{health_port}",),
        "heartbeat_interval": min(interval, timedelta(seconds=1)),
        # To an amphora driver: whether addresses are there already, or its agents configure their interfaces.
        "network": "own" if has_ports else "none",
    }


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class Installation:
    """Some parts of an installation in one process: all of them on one state directory, or one of many on a database
    server."""

    def __init__(self, settings: Settings, parts: Collection[Part] = tuple(Part)) -> None:
        """Opens the store, binds the sockets and builds the drivers that these parts need. Raises Invalid for settings
        that cannot work, also when the database must be upgraded first, and OSError, naming the address, for ports that
        cannot be bound."""
        check(settings, parts)
        self.settings = settings
        self._whole = set(parts) == set(Part)
        if not self._whole and settings.is_embedded:
            raise Invalid(
                "database",
                "the embedded database belongs to one process (`frontinus up`); for parts that run apart give one on a "
                "server: postgresql://… or mariadb://…",
            )
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.store = Store.open(settings.database_url, connections=settings.database_connections)
        if self._whole:
            self.store.upgrade()
        else:
            require_schema(self.store)
        health_settings = _with_management_address(_with_kept_port(settings), settings)
        self.drivers = Drivers(settings, health_settings.bind_port)
        self._registry = CollectorRegistry()
        self._clock = shared_clock(self.store, self._registry)
        self._controller = self._make_controller() if Part.CONTROLLER in parts else None
        self._health = self._make_health(health_settings) if Part.HEALTH in parts else None
        self._listening = _listen(settings.api.bind_host, settings.api.bind_port) if Part.API in parts else None
        self._metrics_server = None if Part.API in parts else serve_metrics(settings.metrics, self._registry)

    @property
    def endpoint(self) -> str | None:
        """The URL of the API, where it is one of the parts."""
        if self._listening is None:
            return None
        host, port = self._listening.getsockname()[:2]
        return f"http://{_bracketed(host)}:{port}"

    async def run(self, stop: asyncio.Event, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop` is set, then let go of everything. `ready` is called when all parts run. Amphorae are not
        touched. Raises whatever ended one of the parts before its time."""
        await self._clock.measure()
        if self._controller is not None:
            await self._controller.register()
        if not self.settings.database:
            # The embedded database is ours alone: cli/up.py holds the state directory's lock. Leases in it are of the dead.
            await self.store.transact(leases.break_all)
            await self.store.transact(idempotency.release_all)
        api: Front | None = None
        parts: set[asyncio.Task[None]] = {asyncio.create_task(self._clock.run(), name="clock")}
        if self._listening is not None:
            from frontinus import front

            chosen = self.settings.api.default_driver or self.settings.drivers.amphora
            api_settings = replace(self.settings.api, default_driver=chosen)
            api = front.Front(
                self.store, self.drivers.network, self.drivers.secret, api_settings, self._clock, self._registry
            )
            parts.add(asyncio.create_task(api.serve(self._listening), name="API"))
        if self._controller is not None:
            parts.add(asyncio.create_task(self._controller.run(), name="controller"))
        if self._health is not None:
            parts.add(asyncio.create_task(self._health.run(), name="health receiver"))
        stopping = asyncio.create_task(stop.wait(), name="stop")
        ready()
        try:
            done, _ = await asyncio.wait({*parts, stopping}, return_when=asyncio.FIRST_COMPLETED)
            for part in done - {stopping}:
                part.result()
                if part.get_name() == "controller" and not self._whole:
                    return  # its cohort is drained
                raise Bug(f"the {part.get_name()} ended by itself")
        finally:
            if api is not None:
                api.stop()
            stopping.cancel()
            for part in parts:
                if part.get_name() != "API":
                    part.cancel()
            await asyncio.gather(*parts, stopping, return_exceptions=True)
            if self._metrics_server is not None:
                self._metrics_server.shutdown()
            if api is not None:
                await api.close()
            await self.drivers.close()
            await self.store.close()

    def _make_controller(self) -> Controller:
        hands = Hands(
            store=self.store,
            amphora_driver=self.drivers.amphora,
            compute=self.drivers.compute,
            network=self.drivers.network,
            secret=self.drivers.secret,
            settings=self.settings.controller,
            now=self._clock,
            metrics=ControllerMetrics(self._registry),
        )
        return Controller(
            hands,
            PROVIDERS,
            configuration=self.drivers.configuration(),
            alone=self._whole and not self.settings.database,
            ends_when_drained=not self._whole,
        )

    def _make_health(self, settings: HealthSettings) -> Health:
        return Health(self.store, self.drivers.amphora, settings, self._clock, HealthMetrics(self._registry))


def require_schema(store: Store) -> None:
    """Raises Invalid when the schema lacks something. One that a newer version has upgraded still serves this one.

    Waits for a server that is away: it may be restarting, and whoever starts us would have to start us again and again."""
    gives_up_at = time.monotonic() + DATABASE_PATIENCE_S
    missing = None
    while True:
        try:
            missing = store.missing_steps()
            break
        except Retry as trouble:
            if time.monotonic() > gives_up_at:
                raise
            log.warning("waiting for the database", reason=trouble.reason)
            time.sleep(DATABASE_PAUSE_S)
    if missing is None:
        log.warning("the database was upgraded by a newer version of Frontinus; this one goes on to use it")
    elif missing:
        raise Invalid(
            "database",
            f"it lacks {len(missing)} migrations ({missing[0]} and what follows): run `frontinus db upgrade` once, on any "
            "host",
        )


class _MetricsServer:
    """/metrics of a process without an API, in a thread of its own."""

    def __init__(self, settings: MetricsSettings, registry: CollectorRegistry) -> None:
        self._server, self._thread = start_http_server(settings.bind_port, settings.bind_host, registry)

    def shutdown(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve_metrics(settings: MetricsSettings, registry: CollectorRegistry) -> _MetricsServer | None:
    """Until its `shutdown`; None where the settings name no port. Raises OSError."""
    if not settings.bind_port:
        return None
    try:
        return _MetricsServer(settings, registry)
    except OSError as error:
        where = f"{settings.bind_host} port {settings.bind_port}"
        raise OSError(
            error.errno, f"{error.strerror} (metrics cannot be served on {where}; set metrics.bind_port)"
        ) from error


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise OSError(
            error.errno,
            f"{error.strerror} (the API cannot listen on {host} port {port}; "
            "set another api.bind_port, or 0 for any free one)",
        ) from error
    listening.set_inheritable(False)
    return listening


def _management_address(settings: Settings) -> str | None:
    """Where amphorae reach this machine, if the network driver gives it an address for that."""
    name = settings.drivers.network
    network, driver_settings = choose("network", name, settings, {"state_dir": settings.state_dir})
    found: str | None = network.controller_address(driver_settings)
    return found


def _with_management_address(health: HealthSettings, settings: Settings) -> HealthSettings:
    """Health settings that hear amphorae which are managed over a network of their own."""
    address = _management_address(settings)
    if address is None or not ip_address(health.bind_host).is_loopback:
        return health
    return replace(health, bind_host=address, bind_early=True)


def _with_kept_port(settings: Settings) -> HealthSettings:
    """Health settings with a port. Port 0 means: one that is free, and the same at each start of this state directory,
    since the amphorae go on sending there. Raises Invalid when the file that keeps it is damaged: another port would
    leave amphorae that live unheard for good."""
    if settings.health.bind_port:
        return settings.health
    file = settings.state_dir / "heartbeat-port"
    if file.exists():
        text = file.read_text(errors="replace").strip()
        if not (text.isascii() and text.isdigit() and 0 < int(text) <= 65_535):
            raise Invalid(
                "health.bind_port",
                f"{file} does not hold a port; write the one there to which the amphorae send (controller_ip_port_list "
                "in their agent.conf), or remove the file if there are none",
            )
        return replace(settings.health, bind_port=int(text))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((settings.health.bind_host, 0))
        port = int(probe.getsockname()[1])
    written = file.with_suffix(".new")
    written.write_text(str(port))
    written.replace(file)  # at once whole, whenever we are killed
    return replace(settings.health, bind_port=port)

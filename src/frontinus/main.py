"""The only place where settings, drivers and loops are joined.

Everything is built here once and handed down; nothing below asks for a global. `Installation` is one process with the
API, a controller and a health receiver in it; cli/ starts it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import entry_points
from typing import Any

import structlog
import uvicorn
from prometheus_client import CollectorRegistry

from frontinus.api.app import create_app
from frontinus.api.identity.build import build_authenticator
from frontinus.api.policy.enforcer import Enforcer
from frontinus.api.settings import check_bind, check_house_settings, check_quotas
from frontinus.controller.act import Hands
from frontinus.controller.loop import Controller
from frontinus.controller.metrics import ControllerMetrics
from frontinus.drivers.amphora.interface import AmphoraDriver
from frontinus.drivers.compute.interface import ComputeDriver
from frontinus.drivers.network.interface import NetworkDriver
from frontinus.drivers.secret.interface import SecretDriver
from frontinus.health.loop import Health
from frontinus.health.metrics import HealthMetrics
from frontinus.health.settings import HealthSettings
from frontinus.model.errors import Bug, Invalid
from frontinus.settings import Settings, decode
from frontinus.store import idempotency, leases
from frontinus.store.engine import Store

log = structlog.get_logger()

PROVIDERS = ("amphora", "octavia")
"""The provider names under which the amphora driver is offered, as in Octavia (`octavia` is its old alias)."""


DRIVER_KINDS: dict[str, type[Any]] = {
    "amphora": AmphoraDriver,
    "compute": ComputeDriver,
    "network": NetworkDriver,
    "secret": SecretDriver,
}


def now() -> datetime:
    """The clock of the whole process."""
    return datetime.now(UTC)


def check(settings: Settings) -> dict[str, object]:
    """Judge everything that can be judged without touching the machine. Raises Invalid naming the setting in dotted
    form; else the settings of the chosen drivers by driver name, as they would be built."""
    for key, port in (("api.bind_port", settings.api.bind_port), ("health.bind_port", settings.health.bind_port)):
        if not 0 <= port <= 65_535:
            raise Invalid(key, f"must be from 0 to 65535, not {port}")
    if settings.database_connections < 1:
        raise Invalid("database_connections", f"must be at least 1, not {settings.database_connections}")
    if settings.database and not settings.database.startswith("sqlite:"):
        Store.open(settings.database_url)  # connects to nothing yet; an SQLite file would get its directory made
    check_bind(settings.api)
    check_quotas(settings.api)
    check_house_settings(settings.api)
    build_authenticator(settings.api, now)
    Enforcer(settings.api.policy_file, enforce_new_defaults=settings.api.enforce_new_defaults)
    installed = {x.name for kind in DRIVER_KINDS for x in entry_points(group=f"frontinus.{kind}_drivers")}
    for name, written in settings.driver_options.items():
        if name not in installed:
            raise Invalid(
                f"driver_options.{name}", f"no driver has this name; installed: {', '.join(sorted(installed))}"
            )
        if not isinstance(written, Mapping):
            raise Invalid(f"driver_options.{name}", "must be a table")
    context = _context(settings, settings.health.bind_port)
    found: dict[str, object] = {}
    for kind, interface in DRIVER_KINDS.items():
        name = getattr(settings.drivers, kind)
        _, driver_settings = _choose(kind, name, interface, settings, context)
        if driver_settings is not None:
            found[name] = driver_settings
    return found


@dataclass(frozen=True)
class Drivers:
    """One of each kind."""

    amphora: AmphoraDriver
    compute: ComputeDriver
    network: NetworkDriver
    secret: SecretDriver

    async def close(self) -> None:
        for driver in (self.amphora, self.compute, self.network, self.secret):
            await driver.close()


def build_drivers(settings: Settings, health_port: int) -> Drivers:
    """Load and build the drivers that the settings name. Raises Invalid naming the setting."""
    choice = settings.drivers
    context = _context(settings, health_port)
    return Drivers(
        amphora=_build("amphora", choice.amphora, AmphoraDriver, settings, context),
        compute=_build("compute", choice.compute, ComputeDriver, settings, context),
        network=_build("network", choice.network, NetworkDriver, settings, context),
        secret=_build("secret", choice.secret, SecretDriver, settings, context),
    )


def _context(settings: Settings, health_port: int) -> dict[str, Any]:
    """What this installation knows and a driver may want to: given under these names, where its settings have them."""
    interval = settings.health.silence_deadline / 3
    return {
        "state_dir": settings.state_dir,
        "heartbeat_destinations": (f"{_bracketed(settings.health.bind_host)}:{health_port}",),
        "heartbeat_interval": min(interval, timedelta(seconds=1)),
    }


def _build(kind: str, name: str, interface: type[Any], settings: Settings, context: Mapping[str, Any]) -> Any:
    driver_class, driver_settings = _choose(kind, name, interface, settings, context)
    with _naming_option(name):
        return driver_class() if driver_settings is None else driver_class(driver_settings)


@contextmanager
def _naming_option(driver: str) -> Iterator[None]:
    """A driver names its own setting; where that stands in the file only we know."""
    try:
        yield
    except Invalid as error:
        raise Invalid(f"driver_options.{driver}.{error.field}", error.reason) from error


def _choose(
    kind: str, name: str, interface: type[Any], settings: Settings, context: Mapping[str, Any]
) -> tuple[Any, object]:
    """A driver's class from its entry point, and its settings. A class that has a `Settings` class gets one: what the
    operator wrote in [driver_options.NAME], and for what he did not write what this installation knows (the names in
    `context`). Settings that have a `check` judge themselves, by Invalid."""
    found = entry_points(group=f"frontinus.{kind}_drivers", name=name)
    if not found:
        known = sorted(x.name for x in entry_points(group=f"frontinus.{kind}_drivers"))
        raise Invalid(f"drivers.{kind}", f"there is no {kind} driver {name!r}; installed: {', '.join(known)}")
    driver_class = next(iter(found)).load()
    if not (isinstance(driver_class, type) and issubclass(driver_class, interface)):
        raise Invalid(f"drivers.{kind}", f"{name!r} is not a {interface.__name__}")
    settings_class = getattr(driver_class, "Settings", None)
    if settings_class is None:
        return driver_class, None
    fields = set(settings_class.__dataclass_fields__)
    written = settings.driver_options.get(name, {})
    known_here = {key: value for key, value in context.items() if key in fields and key not in written}
    decoded = decode(settings_class, {**known_here, **written}, f"driver_options.{name}.")
    if hasattr(decoded, "check"):
        with _naming_option(name):
            decoded.check()
    return driver_class, decoded


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class Installation:
    """API, controller and health receiver in one process, on one state directory."""

    def __init__(self, settings: Settings) -> None:
        """Opens the store, binds the sockets and builds the drivers. Raises Invalid for settings that cannot work and
        OSError, naming the address, for ports that cannot be bound."""
        check(settings)
        self.settings = settings
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.store = Store.open(settings.database_url, connections=settings.database_connections)
        self.store.upgrade()
        health_settings = _with_kept_port(settings)
        self.drivers = build_drivers(settings, health_settings.bind_port)
        self._metrics = CollectorRegistry()
        self.health = Health(self.store, self.drivers.amphora, health_settings, now, HealthMetrics(self._metrics))
        hands = Hands(
            store=self.store,
            amphora_driver=self.drivers.amphora,
            compute=self.drivers.compute,
            network=self.drivers.network,
            secret=self.drivers.secret,
            settings=settings.controller,
            now=now,
            metrics=ControllerMetrics(self._metrics),
        )
        self.controller = Controller(hands, PROVIDERS)
        self._listening = _listen(settings.api.bind_host, settings.api.bind_port)

    @property
    def endpoint(self) -> str:
        """The URL of the API."""
        host, port = self._listening.getsockname()[:2]
        return f"http://{_bracketed(host)}:{port}"

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then let go of everything. Amphorae are not touched. Raises whatever ended one of
        the parts before its time."""
        authenticator = build_authenticator(self.settings.api, now)
        app = create_app(
            self.store,
            self.drivers.network,
            self.settings.api,
            now,
            authenticator=authenticator,
            registry=self._metrics,
            secrets=self.drivers.secret,
        )
        server = _Server(
            uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=3)
        )
        await self.controller.register()
        if not self.settings.database:
            # The embedded database is ours alone: cli/up.py holds the state directory's lock. Leases in it are of the dead.
            await self.store.transact(leases.break_all)
            await self.store.transact(idempotency.release_all)
        parts = {
            asyncio.create_task(server.serve(sockets=[self._listening]), name="api"),
            asyncio.create_task(self.controller.run(), name="controller"),
            asyncio.create_task(self.health.run(), name="health"),
        }
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            done, _ = await asyncio.wait({*parts, stopping}, return_when=asyncio.FIRST_COMPLETED)
            for part in done - {stopping}:
                part.result()
                raise Bug(f"the {part.get_name()} ended by itself")
        finally:
            server.should_exit = True
            stopping.cancel()
            for part in parts:
                if part.get_name() != "api":
                    part.cancel()
            await asyncio.gather(*parts, stopping, return_exceptions=True)
            await authenticator.close()
            await self.drivers.close()
            await self.store.close()


class _Server(uvicorn.Server):
    """uvicorn, less its signal handlers: cli/ owns the signals of the process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


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

"""Find a driver by the name that the settings give, see that it may be loaded, and build it.

Drivers are entry points, in a group for each kind. Those of our own distribution always load. One of another
distribution is foreign code in our process, written for an interface that may still change: it loads when its
interface is `stable`, or the operator named it in `drivers.allow_experimental`, and when it was written for just the
version of the interface that we have (DESIGN section 2). Nothing of a driver that may not be loaded is imported.

Every refusal is Invalid, naming the setting and what to do. Next: main.py."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from types import ModuleType
from typing import Any

from frontinus.drivers.amphora import interface as amphora_interface
from frontinus.drivers.compute import interface as compute_interface
from frontinus.drivers.network import interface as network_interface
from frontinus.drivers.secret import interface as secret_interface
from frontinus.model.errors import Invalid
from frontinus.settings import Settings, decode

OUR_DISTRIBUTION = "frontinus"
STABLE = "stable"


@dataclass(frozen=True)
class DriverKind:
    """One kind of driver: its interface, with the version and the maturity that the interface says of itself."""

    name: str
    interface: type[Any]
    module: ModuleType

    @property
    def group(self) -> str:
        """The entry point group."""
        return f"frontinus.{self.name}_drivers"

    @property
    def version(self) -> int:
        return int(self.module.INTERFACE_VERSION)

    @property
    def maturity(self) -> str:
        return str(self.module.INTERFACE_MATURITY)


DRIVER_KINDS: dict[str, DriverKind] = {
    kind.name: kind
    for kind in (
        DriverKind("amphora", amphora_interface.AmphoraDriver, amphora_interface),
        DriverKind("compute", compute_interface.ComputeDriver, compute_interface),
        DriverKind("network", network_interface.NetworkDriver, network_interface),
        DriverKind("secret", secret_interface.SecretDriver, secret_interface),
    )
}


@dataclass(frozen=True)
class Offer:
    """A driver that some installed distribution offers; nothing of it was imported to know this."""

    kind: DriverKind
    name: str
    where: str
    distribution: str
    distribution_version: str
    entry_point: EntryPoint

    @property
    def is_ours(self) -> bool:
        return self.distribution == OUR_DISTRIBUTION

    def refusal(self, allowed: tuple[str, ...]) -> str | None:
        """Why it may not be loaded; None when it may."""
        if self.is_ours or self.kind.maturity == STABLE or self.name in allowed:
            return None
        return (
            f"{self.name!r} is of the distribution {self.distribution}, not of Frontinus, and the interface of "
            f"{self.kind.name} drivers (version {self.kind.version}) is {self.kind.maturity}: the next release may change "
            f'it; to load the driver all the same, write drivers.allow_experimental = ["{self.name}"]'
        )


@cache
def _installed(_in: tuple[str, ...]) -> dict[str, EntryPoints]:
    """Entry points of what can be imported from there, by group. Read once: it opens a file of everything that is
    installed, and a start, which should be quick after a death, asks twenty times."""
    every = entry_points()
    return {kind.group: every.select(group=kind.group) for kind in DRIVER_KINDS.values()}


def offers(kind: DriverKind) -> tuple[Offer, ...]:
    """Every driver of this kind that is installed, by name. A distribution that is found twice (installed, and in
    sys.path by its source) counts once."""
    found: dict[tuple[str, str, str], Offer] = {}
    for point in _installed(tuple(sys.path))[kind.group]:
        distribution = "(unknown)" if point.dist is None else point.dist.name
        version = "" if point.dist is None else point.dist.version
        found.setdefault(
            (point.name, distribution, point.value), Offer(kind, point.name, point.value, distribution, version, point)
        )
    return tuple(found[key] for key in sorted(found))


def find(kind: DriverKind, name: str) -> Offer:
    """The offer of this name. Raises Invalid when there is none, or several distributions have one: which of them is
    meant must not depend on the order in which they were installed."""
    named = [x for x in offers(kind) if x.name == name]
    if not named:
        known = sorted({x.name for x in offers(kind)})
        raise Invalid(f"drivers.{kind.name}", f"there is no {kind.name} driver {name!r}; installed: {', '.join(known)}")
    if len(named) > 1:
        whose = ", ".join(f"{x.distribution} ({x.where})" for x in named)
        raise Invalid(f"drivers.{kind.name}", f"several distributions have a {name!r}: {whose}; uninstall all but one")
    return named[0]


def load(kind: DriverKind, name: str, allowed: tuple[str, ...]) -> type[Any]:
    """The class of a driver that may be loaded. Raises Invalid."""
    offer = find(kind, name)
    refusal = offer.refusal(allowed)
    if refusal is not None:
        raise Invalid(f"drivers.{kind.name}", refusal)
    found = _imported(kind, name, offer.entry_point)
    return driver_class(kind, name, found, is_ours=offer.is_ours)


def load_from(reference: str) -> tuple[DriverKind, type[Any]]:
    """The class under `module:Class`, and which kind of driver it is. Raises Invalid."""
    module_name, colon, qualified = reference.partition(":")
    if not (module_name and colon and qualified):
        raise Invalid("driver", f"{reference!r} is neither the name of an installed driver nor module:Class")
    try:
        found: Any = import_module(module_name)
        for part in qualified.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise Invalid("driver", f"{reference} cannot be imported: {error}") from error
    for kind in DRIVER_KINDS.values():
        if isinstance(found, type) and issubclass(found, kind.interface):
            return kind, found
    interfaces = ", ".join(x.interface.__name__ for x in DRIVER_KINDS.values())
    raise Invalid("driver", f"{reference} derives from none of {interfaces}")


def _imported(kind: DriverKind, name: str, point: EntryPoint) -> object:
    try:
        return point.load()
    except Exception as error:  # foreign code: whatever its import raises, the operator must hear whose trouble it is
        raise Invalid(
            f"drivers.{kind.name}", f"{name!r} ({point.value}) cannot be imported: {type(error).__name__}: {error}"
        ) from error


def driver_class(kind: DriverKind, name: str, found: object, *, is_ours: bool) -> type[Any]:
    """What was found, if it is a whole driver for the interface that we have. Raises Invalid."""
    field = f"drivers.{kind.name}"
    if not (isinstance(found, type) and issubclass(found, kind.interface)):
        raise Invalid(field, f"{name!r} is no class that derives from {kind.interface.__name__}")
    if not is_ours:
        written_for = stated_interface(kind, found)
        if written_for is None:
            raise Invalid(
                field,
                f"{name!r} does not say for which version of the interface it was written; its class must have "
                f"`interface = {kind.version}`, a number and not our constant",
            )
        if written_for != kind.version:
            raise Invalid(
                field,
                f"{name!r} was written for version {written_for} of the interface of {kind.name} drivers, and this is "
                f"version {kind.version}: install a version of the driver that goes with this one",
            )
    if inspect.isabstract(found):
        missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
        raise Invalid(field, f"{name!r} lacks what the interface asks of every {kind.name} driver: {missing}")
    return found


def stated_interface(kind: DriverKind, driver: type[Any]) -> object:
    """The version that a class, or one that it derives from, says itself that it was written for; None where it only
    inherits what the interface says of itself."""
    for each in driver.__mro__:
        if each is kind.interface:
            return None
        if "interface" in vars(each):
            stated: object = vars(each)["interface"]
            return stated
    return None


def choose(kind: str, name: str, settings: Settings, context: Mapping[str, Any]) -> tuple[type[Any], object]:
    """A driver's class, and its settings. A class that has a `Settings` class gets one: what the operator wrote in
    [driver_options.NAME], and for what he did not write what this installation knows (the names in `context`). Settings
    that have a `check` judge themselves, by Invalid."""
    found = load(DRIVER_KINDS[kind], name, settings.drivers.allow_experimental)
    return found, settings_of(found, name, settings.driver_options.get(name, {}), context)


def settings_of(driver: type[Any], name: str, written: Mapping[str, Any], context: Mapping[str, Any]) -> object:
    """The settings with which a driver's class is to be called; None for one that has none. Raises Invalid."""
    settings_class = getattr(driver, "Settings", None)
    if settings_class is None:
        return None
    fields = set(settings_class.__dataclass_fields__)
    known_here = {key: value for key, value in context.items() if key in fields and key not in written}
    decoded = decode(settings_class, {**known_here, **written}, f"driver_options.{name}.")
    if hasattr(decoded, "check"):
        with naming_option(name):
            decoded.check()
    return decoded


def build(kind: str, name: str, settings: Settings, context: Mapping[str, Any]) -> Any:
    """A driver, ready to be used. Raises Invalid."""
    found, driver_settings = choose(kind, name, settings, context)
    with naming_option(name):
        return found() if driver_settings is None else found(driver_settings)


@contextmanager
def naming_option(driver: str) -> Iterator[None]:
    """A driver names its own setting; where that stands in the file only we know."""
    try:
        yield
    except Invalid as error:
        raise Invalid(f"driver_options.{driver}.{error.field}", error.reason) from error

"""All settings as one value: defaults, then a TOML file, then the command line. Built once, passed down, never global.

Unknown keys are errors. Durations are written in seconds. `frontinus config check` prints the effective settings.
Each component's settings live beside it, documented field by field; this file only joins them and reads text."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any, TypeVar

from frontinus.api.settings import ApiSettings
from frontinus.controller.provider_settings import ProviderSettings
from frontinus.controller.settings import ControllerSettings
from frontinus.drivers.openstack.settings import OpenStackSettings
from frontinus.health.settings import HealthSettings
from frontinus.model.errors import Invalid
from frontinus.model.secrets import Secret

_T = TypeVar("_T")


def default_state_dir() -> Path:
    """/var/lib/frontinus for root, else $XDG_STATE_HOME/frontinus (XDG base directory specification)."""
    if os.geteuid() == 0:
        return Path("/var/lib/frontinus")
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "frontinus"


class DatabaseUrl(str):
    """A URL whose password is not told when it is printed as a setting."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(self.without_password())

    def without_password(self) -> str:
        # Up to the last @ before the path, since a password that was not percent-encoded may hold others.
        shown = re.sub(r"(?<=://)([^/:]*):.*@(?=[^@/]*(?:/|$))", r"\1:(hidden)@", self)
        return re.sub(r"(?<=[?&]password=)[^&]*", "(hidden)", shown)


@dataclass(frozen=True)
class DriverChoice:
    """Which driver of each kind this process uses, by entry-point name. Exactly one each (DESIGN section 2)."""

    amphora: str = "haproxy"
    """Entry point in `frontinus.amphora_drivers`: what configures the amphorae."""

    compute: str = "process"
    """Entry point in `frontinus.compute_drivers`: where amphorae run."""

    network: str = "loopback"
    """Entry point in `frontinus.network_drivers`: who gives addresses."""

    secret: str = "local"  # noqa: S105 - the name of a driver
    """Entry point in `frontinus.secret_drivers`: who keeps certificates."""

    allow_experimental: tuple[str, ...] = ()
    """Names of drivers of other distributions that may be loaded though the interface that they were written for is
    experimental, and may change with the next release. `frontinus driver list` shows which that concerns."""


class LogLevel(StrEnum):
    """What is logged: this and everything graver."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class LogSettings:
    level: LogLevel = LogLevel.INFO
    """debug, info, warning or error. At info, one line for each load balancer that was settled."""

    json: bool = False
    """One JSON object per line instead of text for people."""


@dataclass(frozen=True)
class MetricsSettings:
    """Where a process without an API (`frontinus controller`, `frontinus health`) serves /metrics; the API serves its own."""

    bind_host: str = "127.0.0.1"
    """Whoever reaches it may read it: there is no authentication."""

    bind_port: int = 0
    """0: nowhere."""


@dataclass(frozen=True)
class Settings:
    """Everything that a process of Frontinus needs to know."""

    state_dir: Path = field(default_factory=default_state_dir)
    """Where the embedded installation keeps its database, keys and amphorae. Made if absent, private to its user."""

    database: DatabaseUrl = field(default_factory=DatabaseUrl)
    """Where the truth is: sqlite:////absolute/path, postgresql://user:password@host/name or
    mariadb://user:password@host/name. Empty: an SQLite file in state_dir."""

    database_connections: int = 10
    """Most connections of one process to a database server; SQLite has one."""

    drivers: DriverChoice = field(default_factory=DriverChoice)
    api: ApiSettings = field(default_factory=ApiSettings)
    controller: ControllerSettings = field(default_factory=ControllerSettings)
    health: HealthSettings = field(default_factory=HealthSettings)
    provider: ProviderSettings = field(default_factory=ProviderSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    log: LogSettings = field(default_factory=LogSettings)
    openstack: OpenStackSettings = field(default_factory=OpenStackSettings)
    """Which cloud the drivers for OpenStack's services ask."""

    driver_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Tables of single drivers, as [driver_options.haproxy]; each driver's settings class says what may stand there."""

    @property
    def is_embedded(self) -> bool:
        """Whether the database is a file of this installation, and so one process's own."""
        return not self.database or self.database.startswith("sqlite:")

    @property
    def database_url(self) -> str:
        return str(self.database) or f"sqlite:///{self.state_dir / 'frontinus.sqlite'}"


def load(file: Path | None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Settings from a TOML file (None: defaults only) with overrides, a nested table, on top.

    Raises Invalid naming the key in dotted form, and for a file that cannot be read or is not TOML."""
    table: dict[str, Any] = {}
    if file is not None:
        try:
            table = tomllib.loads(file.read_text("utf-8"))
        except OSError as error:
            raise Invalid(str(file), f"the configuration file cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise Invalid(str(file), f"the configuration file is not TOML: {error}") from error
    return decode(Settings, _merge(table, overrides or {}), "")


def decode(wanted: type[_T], table: Mapping[str, Any], path: str) -> _T:
    """Build a settings dataclass from a table. Raises Invalid for an unknown key or a value of the wrong type."""
    hints = typing.get_type_hints(wanted)
    known = {x.name for x in dataclasses.fields(wanted) if x.init}  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            raise Invalid(f"{path}{key}", f"unknown setting; known here: {', '.join(sorted(known))}")
    return wanted(**{key: _convert(hints[key], value, f"{path}{key}") for key, value in table.items()})


def describe(settings: object, path: str = "") -> list[tuple[str, str]]:
    """Every effective setting as (dotted key, value as text), in the order of the classes. A field whose metadata say
    `secret` is not told."""
    lines: list[tuple[str, str]] = []
    for item in dataclasses.fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, item.name)
        if dataclasses.is_dataclass(value):
            lines += describe(value, f"{path}{item.name}.")
        else:
            hidden = bool(value) and item.metadata.get("secret", False)
            lines.append((f"{path}{item.name}", "(hidden)" if hidden else _text(value)))
    return lines


def digests(settings: object, path: str = "") -> dict[str, str]:
    """A short digest of each setting that changes what is rendered or built, by its dotted key: what all controllers of a
    cohort must share. Paths are a host's own, as are fields whose metadata say `own`; secrets are never told."""
    found: dict[str, str] = {}
    for item in dataclasses.fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, item.name)
        if item.metadata.get("own") or item.metadata.get("secret") or isinstance(value, Path | Secret):
            continue
        text = repr(value) if isinstance(value, str) else _text(value)
        found[f"{path}{item.name}"] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return found


def _convert(hint: Any, value: Any, path: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        options = [x for x in typing.get_args(hint) if x is not type(None)]
        return None if value is None else _convert(options[0], value, path)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, hint):
            return value
        if not isinstance(value, Mapping):
            raise Invalid(path, "must be a table")
        return decode(hint, value, f"{path}.")
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise Invalid(path, "must be a list")
        item = typing.get_args(hint)[0]
        return tuple(_convert(item, x, f"{path}[{number}]") for number, x in enumerate(value))
    if origin is not None:
        return value  # tables of drivers: each driver decodes its own
    if hint is timedelta and isinstance(value, int | float) and not isinstance(value, bool):
        if value < 0:
            raise Invalid(path, "must not be negative (seconds)")
        return timedelta(seconds=value)
    if hint is Path and isinstance(value, str | Path):
        return Path(value).expanduser().absolute()
    if hint in (Secret, DatabaseUrl) and isinstance(value, str):
        return hint(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and issubclass(hint, Enum) and isinstance(value, str):
        try:
            return hint(value)
        except ValueError:
            raise Invalid(path, f"must be one of {', '.join(str(x.value) for x in hint)}") from None
    if hint is int and isinstance(value, bool):
        raise Invalid(path, "must be a number")
    if isinstance(hint, type) and isinstance(value, hint):
        return value
    raise Invalid(path, f"must be {_name(hint)}, not {type(value).__name__}")


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def _name(hint: Any) -> str:
    return {
        timedelta: "a number of seconds",
        Path: "a path",
        str: "text",
        Secret: "text",
        DatabaseUrl: "text",
        int: "a number",
        bool: "true or false",
    }.get(hint, getattr(hint, "__name__", str(hint)))


def _text(value: object) -> str:
    if value is None or value == "" or value == ():
        return "(not set)"
    if isinstance(value, DatabaseUrl):
        return value.without_password()
    if isinstance(value, timedelta):
        return f"{value.total_seconds():.12g} s"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(_text(x) for x in value)
    if dataclasses.is_dataclass(value):
        return "{" + ", ".join(f"{key} = {text}" for key, text in describe(value)) + "}"
    return str(value)

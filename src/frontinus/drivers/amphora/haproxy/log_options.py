"""What an operator can say about logs, and what of it cannot be. Apart from logs.py, so that settings judge themselves."""

from __future__ import annotations

import ipaddress
import re
from typing import Protocol

from frontinus.model.errors import Invalid

LOCAL_FACILITIES = range(8)
PROTOCOLS = ("UDP", "TCP")

TOKENS = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_KNOWN_TOKENS = frozenset({"project_id", "lb_id"})


class LogOptions(Protocol):
    """Those settings of the driver that are about logs; what each one means stands in settings.py."""

    @property
    def tenant_log_targets(self) -> tuple[str, ...]: ...
    @property
    def admin_log_targets(self) -> tuple[str, ...]: ...
    @property
    def log_protocol(self) -> str: ...
    @property
    def user_log_facility(self) -> int: ...
    @property
    def administrative_log_facility(self) -> int: ...
    @property
    def user_log_format(self) -> str: ...


def check_logs(settings: LogOptions) -> None:
    """Raises Invalid naming the setting that cannot be."""
    for name in ("tenant_log_targets", "admin_log_targets"):
        for target in getattr(settings, name):
            try:
                address_of(target)
            except ValueError as error:
                raise Invalid(
                    name, f"{target!r} is not an IP address with a port, as 192.0.2.1:514: {error}"
                ) from error
    for name in ("user_log_facility", "administrative_log_facility"):
        if getattr(settings, name) not in LOCAL_FACILITIES:
            raise Invalid(name, "must be from 0 to 7: the local facility of syslog")
    if settings.log_protocol not in PROTOCOLS:
        raise Invalid("log_protocol", f"must be {' or '.join(PROTOCOLS)}")
    if not settings.user_log_format.isprintable():
        raise Invalid("user_log_format", "must be one line of printable characters")
    for token in TOKENS.findall(settings.user_log_format):
        if token not in _KNOWN_TOKENS:
            known = ", ".join(sorted(_KNOWN_TOKENS))
            raise Invalid("user_log_format", f"there is no token {token!r}; known: {known}")


def address_of(target: str) -> str:
    """A receiver as HAProxy spells it. Raises ValueError."""
    host, _, port = target.rpartition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise ValueError("the port is missing")
    address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"

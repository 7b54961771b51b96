"""The compute driver whose amphorae are plain processes of this machine.

One address of 127.0.0.0/8 per amphora, so that all agents can have the same port; everything else is
drivers/compute/host/."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from ipaddress import AddressValueError, IPv4Network, NetmaskValueError
from typing import ClassVar

from frontinus.drivers.compute.host.compute import HostCompute, HostSettings
from frontinus.drivers.compute.host.place import PlaceDirectory
from frontinus.model.errors import Invalid
from frontinus.model.ids import AmphoraId

_LOOPBACK = IPv4Network("127.0.0.0/8")


@dataclass(frozen=True, kw_only=True)
class ProcessSettings(HostSettings):
    """Where and how; [driver_options.process] in the configuration file."""

    address_range: str = "127.128.0.0/9"
    """Management addresses are in here, chosen by a hash of the amphora's id. Wide, because an amphora whose address is
    taken does not come up, and another is made in its stead after a while: a fleet of 1,000 in these 8 million addresses
    sees that once in its making with a chance of 6 in 100."""


class ProcessCompute(HostCompute):
    """See drivers/compute/interface.py, whose docstrings are the law."""

    name: ClassVar[str] = "process"
    Settings: ClassVar[type[ProcessSettings]] = ProcessSettings

    def __init__(self, settings: ProcessSettings) -> None:
        """Touches nothing. Raises Invalid naming the setting that cannot be."""
        super().__init__(settings)
        self._range = _parse_range(settings.address_range)

    def management_address(self, amphora_id: AmphoraId) -> str | None:
        number = int.from_bytes(sha256(amphora_id.encode()).digest()[:8])
        # Of each 256 addresses .0 and .255 are left out: they look like a network and a broadcast to people and tools.
        block, last = divmod(number % (self._range.num_addresses // 256 * 254), 254)
        return str(self._range[block * 256 + 1 + last])

    def _address(self, amphora_id: AmphoraId, directory: PlaceDirectory) -> str | None:
        return self.management_address(amphora_id)


def _parse_range(text: str) -> IPv4Network:
    try:
        network = IPv4Network(text)
    except (AddressValueError, NetmaskValueError, ValueError) as error:
        raise Invalid("address_range", f"{text!r} is not an IPv4 network: {error}") from error
    if not network.subnet_of(_LOOPBACK) or network.prefixlen > 24:
        raise Invalid("address_range", f"{text} must lie in {_LOOPBACK} and have 256 addresses or more")
    return network

"""What services of OpenStack say of themselves, of our account and of what it may have, as far as the commands judge it.
Values only; some are decoded from answers as they come. What they mean: judging.py."""

from __future__ import annotations

from datetime import datetime

import msgspec

from frontinus.drivers.network.neutron.facts import SubnetFacts

LOAD_BALANCER = "load-balancer"
"""The type of service under which clients look for us (service-types-authority)."""

INTERFACES = ("public", "internal", "admin")

UNLIMITED = -1


class CatalogueEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Of the catalogue that comes with a token."""

    type: str
    interface: str
    region: str
    url: str


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """Who we are, by our token."""

    user: str
    user_id: str
    project: str
    project_id: str
    roles: frozenset[str]
    catalogue: tuple[CatalogueEntry, ...] = ()


class Flavor(msgspec.Struct, frozen=True, kw_only=True):
    """Of Nova."""

    id: str
    name: str
    vcpus: int
    ram: int
    disk: int


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """Of Glance. `min_ram` in MiB, `min_disk` in GiB."""

    id: str
    name: str | None = None
    owner: str | None = None
    status: str = ""
    visibility: str = ""
    min_ram: int = 0
    min_disk: int = 0
    created_at: datetime


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """A place where Nova runs servers."""

    host: str
    zone: str
    status: str
    state: str

    @property
    def takes_servers(self) -> bool:
        return self.status == "enabled" and self.state == "up"


class Zone(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    is_available: bool


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """Of a security group."""

    direction: str
    ethertype: str = "IPv4"
    protocol: str | None = None
    port_range_min: int | None = None
    port_range_max: int | None = None


class SecurityGroup(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str = ""
    project_id: str = ""
    security_group_rules: tuple[Rule, ...] = ()


class Network(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str = ""
    admin_state_up: bool = True
    subnets: tuple[SubnetFacts, ...] = ()


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """`each`: how many of them one more takes of whatever is counted."""

    name: str
    limit: int
    used: int
    each: int

    @property
    def room(self) -> int | None:
        """For how many more; None: for any number."""
        return None if self.limit == UNLIMITED or not self.each else max(0, self.limit - self.used) // self.each


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What stood behind a URL of the catalogue. `trouble`: why nothing did, in words."""

    status: int = 0
    is_ours: bool = False
    """Whether it speaks as a load-balancer API does."""

    takes_tokens: bool = False
    trouble: str = ""

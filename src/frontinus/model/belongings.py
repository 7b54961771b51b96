"""What stands outside under our names: one thing each, whose it is, and how that is known. Values only.

A thing belongs to an amphora or to a load balancer; without either it is used up, says the driver that made it. Whether its
owner still exists only the store knows. Next: controller/sweep_plan.py."""

from __future__ import annotations

from enum import StrEnum
from hashlib import sha256

import msgspec

from frontinus.model.ids import AmphoraId, LoadBalancerId, ProjectId


class BelongingKind(StrEnum):
    PLACE = "place"
    """Where an amphora is, of a driver that tells no more of it."""
    DIRECTORY = "directory"
    MEMORY = "memory"
    """A directory in memory, for keys."""
    PROCESS = "process"
    NAMESPACE = "namespace"
    LINK = "link"
    SERVER = "server"
    ADDRESS = "address"
    PORT = "port"
    SECURITY_GROUP = "security_group"
    CERTIFICATE = "certificate"
    FILE = "file"
    """What is left of one that was being written when its writer was killed."""


class OwnerKind(StrEnum):
    AMPHORA = "amphora"
    LOAD_BALANCER = "load_balancer"
    NOBODY = "nobody"


class Owner(msgspec.Struct, frozen=True, order=True):
    """Of what belongs to nobody, `id` is a digest of the thing's name."""

    kind: OwnerKind
    id: str


class Belonging(msgspec.Struct, frozen=True, kw_only=True):
    """`name` is what the outside calls it, `proof` by what it is known to be ours: its name alone, or a tag besides. `tenant` is
    the project whose users can write that themselves, of whatever of theirs they like; None: nobody but us can."""

    kind: BelongingKind
    name: str
    proof: str
    amphora_id: AmphoraId | None = None
    load_balancer_id: LoadBalancerId | None = None
    tenant: ProjectId | None = None

    @property
    def owner(self) -> Owner:
        if self.amphora_id is not None:
            return Owner(OwnerKind.AMPHORA, self.amphora_id)
        if self.load_balancer_id is not None:
            return Owner(OwnerKind.LOAD_BALANCER, self.load_balancer_id)
        return Owner(OwnerKind.NOBODY, sha256(self.name.encode(errors="surrogateescape")).hexdigest())

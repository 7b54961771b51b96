"""Of what an amphora is made, and where: what the flavor and the availability zone of its load balancer say of it.

Kept with the load balancer from its creation on, so every amphora that it ever gets is made alike. The compute driver
carries it out, and the network driver the part that is about networks; which words each of them honours, it says itself
(model/capabilities.py)."""

from __future__ import annotations

from hashlib import sha256

import msgspec

COMPUTE_FLAVOR, IMAGE_TAG, COMPUTE_ZONE = "compute_flavor", "amp_image_tag", "compute_zone"
VOLUME_ZONE, MANAGEMENT_NETWORK = "volume_zone", "management_network"

BY_FLAVOR = frozenset({COMPUTE_FLAVOR, IMAGE_TAG})
BY_ZONE = frozenset({COMPUTE_ZONE, VOLUME_ZONE, MANAGEMENT_NETWORK})
"""The words of a placement, which are keys of flavor data and of availability zone data."""


class Placement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Words are of whoever carries them out: names or ids, as an operator wrote them. None: what the driver's settings say."""

    compute_flavor: str | None = None
    amp_image_tag: str | None = None
    compute_zone: str | None = None
    volume_zone: str | None = None
    management_network: str | None = None

    @property
    def asked(self) -> frozenset[str]:
        """The words that say something."""
        return frozenset(name for name in self.__struct_fields__ if getattr(self, name) is not None)

    @property
    def digest(self) -> str:
        """The same for placements that are alike, on every machine; it is part of names."""
        return sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()[:16]


UNSPECIFIED = Placement()


def field_of(word: str) -> str:
    """The attribute of a load balancer by which a word was asked for."""
    return "flavor_id" if word in BY_FLAVOR else "availability_zone"

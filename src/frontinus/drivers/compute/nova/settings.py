"""How amphorae are made in Nova: [driver_options.nova]. Which cloud it is, is in [openstack]; by which network they
are managed, in the network driver's. Next: servers.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from frontinus.drivers.openstack.settings import OpenStackSettings
from frontinus.model.errors import Invalid

NO_GROUPS = "none"
POLICIES = ("soft-anti-affinity", "anti-affinity", NO_GROUPS)


@dataclass(frozen=True, kw_only=True)
class NovaSettings:
    flavor: str
    """Name or id of the compute flavor of amphorae."""

    image_tag: str = "amphora-image"
    """Amphorae are made from the newest image with this tag."""

    image_owner: str | None = None
    """Id of the project that the image must belong to; None: our account's own. Without it anybody who may share an image
    could have amphorae made from his."""

    key_name: str | None = None
    """Name of a key pair of our account's, for images that let somebody log in."""

    availability_zone: str | None = None
    """Where amphorae are made; None: wherever Nova likes."""

    server_groups: str = "soft-anti-affinity"
    """How the amphorae of one load balancer are kept apart: `soft-anti-affinity` on different hosts where Nova can (of two
    made at the same moment it may not see the other), `anti-affinity` rather none at all than two on one host, `none` not."""

    volume_size_gib: int | None = None
    """Boot from a volume of this size, made from the image and gone with its server; None: from the image on the host's
    disk."""

    volume_type: str | None = None
    """Of that volume; None: Cinder's default."""

    build_retries: int = 2
    """How often in the same build a server that Nova could not make is made again."""

    build_timeout: timedelta = timedelta(minutes=5)
    """Until Nova has made a server; after it somebody is told, and it is waited for again."""

    delete_timeout: timedelta = timedelta(minutes=2)
    """The same for taking one away."""

    boot_timeout: timedelta = timedelta(minutes=5)
    """Until the agent in a server answers."""

    openstack: OpenStackSettings = field(default_factory=OpenStackSettings)
    """As in [openstack], unless it is written here too."""

    def check(self) -> None:
        """Raises Invalid naming the setting that cannot be."""
        if not self.flavor:
            raise Invalid("flavor", "name the compute flavor of amphorae")
        if not self.image_tag:
            raise Invalid("image_tag", "name the tag of the images that amphorae are made from")
        if self.server_groups not in POLICIES:
            raise Invalid("server_groups", f"must be {' or '.join(POLICIES)}, not {self.server_groups!r}")
        if self.volume_size_gib is not None and self.volume_size_gib < 1:
            raise Invalid("volume_size_gib", f"must be at least 1, not {self.volume_size_gib}")
        if self.volume_type is not None and self.volume_size_gib is None:
            raise Invalid("volume_type", "needs volume_size_gib: without it there is no volume")
        if not 0 <= self.build_retries <= 10:
            raise Invalid("build_retries", f"must be from 0 to 10, not {self.build_retries}")
        for name in ("build_timeout", "delete_timeout", "boot_timeout"):
            if getattr(self, name) <= timedelta(0):
                raise Invalid(name, "must be more than 0")
        self.openstack.check()

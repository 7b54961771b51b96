"""Which cloud is asked, as whom, and for how long: the table [openstack] of the configuration file, for every driver that
asks one. What a driver makes there is in its own settings; a password never stands here, but in clouds.yaml. Next: cloud.py."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

from frontinus.model.errors import Invalid

_INSTALLATION = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")


@dataclass(frozen=True)
class OpenStackSettings:
    cloud: str = "frontinus"
    """Name of the entry in clouds.yaml (looked for where OpenStack's clients look; OS_CLIENT_CONFIG_FILE names another
    file) with the URL of Keystone, the account that Frontinus works as, its project, and the region."""

    installation: str = "frontinus"
    """What is made in the cloud is marked with this word, and only what is so marked is ever swept. Two installations of
    Frontinus in one project must have two words; all controllers of one must have the same."""

    timeout: timedelta = timedelta(seconds=15)
    """How long a service may take for one answer."""

    retries: int = 2
    """How often a question is asked again in the same call when no answer came, or one that says to come back (502, 503,
    504). What changes something is sent again only when it is certain that it never arrived."""

    breaker_threshold: int = 5
    """After so many failures in a row a service is not asked for a while; 0: it always is."""

    breaker_pause: timedelta = timedelta(seconds=15)
    """For that long. Then one call tries, and its success lets the others through."""

    def check(self) -> None:
        """Raises Invalid naming the setting that cannot be."""
        if not self.cloud:
            raise Invalid("openstack.cloud", "name an entry of clouds.yaml")
        if not _INSTALLATION.fullmatch(self.installation):
            raise Invalid("openstack.installation", "must be 31 lower-case letters, digits and hyphens at most")
        if self.timeout <= timedelta(0):
            raise Invalid("openstack.timeout", "must be more than 0")
        if not 0 <= self.retries <= 10:
            raise Invalid("openstack.retries", f"must be from 0 to 10, not {self.retries}")
        if self.breaker_threshold < 0:
            raise Invalid("openstack.breaker_threshold", "must not be negative")

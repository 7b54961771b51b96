"""What a controller works with: the drivers, the store, the clock. Built in main.py and handed to everything here that
acts; decides nothing and knows no step. Next: act.py, places.py."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property

from frontinus.controller.metrics import ControllerMetrics
from frontinus.controller.restraint import Grace
from frontinus.controller.settings import ControllerSettings
from frontinus.controller.talks import Talks
from frontinus.controller.trees import Trees
from frontinus.drivers.amphora.interface import AmphoraDriver
from frontinus.drivers.compute.interface import ComputeDriver
from frontinus.drivers.network.interface import PORTS, NetworkDriver
from frontinus.drivers.secret.interface import SecretDriver
from frontinus.model.cohorts import CohortName
from frontinus.model.placement import Placement
from frontinus.store.engine import Store

SPARES_WHERE_SLOW = 2


@dataclass(frozen=True)
class Hands:
    """What the controller acts with: the drivers, the store and the clock; and where it counts. One per process."""

    store: Store
    amphora_driver: AmphoraDriver
    compute: ComputeDriver
    network: NetworkDriver
    secret: SecretDriver
    settings: ControllerSettings
    now: Callable[[], datetime]
    metrics: ControllerMetrics = field(default_factory=ControllerMetrics)
    grace: Grace = field(default_factory=lambda: Grace(time.monotonic))
    talks: Talks = field(default_factory=Talks)

    @cached_property
    def trees(self) -> Trees:
        return Trees(self.store)

    @property
    def cohort(self) -> CohortName:
        """All controllers whose amphora driver is this one, in this version."""
        return CohortName(self.amphora_driver.name, self.amphora_driver.version)

    @property
    def has_ports(self) -> bool:
        """Whether amphorae hang on networks by ports, which must be made, attached and configured."""
        return PORTS in self.network.features

    @property
    def boot_timeout(self) -> timedelta:
        return self.compute.boot_timeout if self.settings.boot_timeout is None else self.settings.boot_timeout

    def spare_pool(self, placement: Placement | None) -> str:
        """Spares of which pool serve a load balancer: amphorae of this driver in places of this compute driver, made of the same
        and in the same place."""
        alike = "" if placement is None else f"/{placement.digest}"
        return f"{self.amphora_driver.name}/{self.compute.name}{alike}"

    @property
    def spares_wanted(self) -> int:
        if self.settings.spares is not None:
            return self.settings.spares
        return SPARES_WHERE_SLOW if self.compute.starts_slowly else 0

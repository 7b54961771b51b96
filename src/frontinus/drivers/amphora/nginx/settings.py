"""What an operator can set on the nginx driver. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from frontinus.drivers.amphora.agent.settings import AgentDriverSettings
from frontinus.drivers.amphora.agent.stream import NginxSettings
from frontinus.model.errors import Invalid


@dataclass(frozen=True, kw_only=True)
class NginxDriverSettings(AgentDriverSettings):
    """[driver_options.nginx] in the configuration file.

    Fields that show in the rendered text (marked *text*) change every digest: the next converge of each load balancer
    pushes a reload."""

    workers: int = 1
    """*text* Worker processes per amphora. One costs least for many small load balancers on one machine."""

    max_connections: int = 8_192
    """*text* Connections and UDP sessions of one load balancer at most. About 1 kB of memory is set aside for each."""

    shutdown_timeout: timedelta = timedelta(minutes=30)
    """*text* How long connections may go on in a worker that a reload replaced; then they are cut."""

    def nginx(self) -> NginxSettings:
        """What of this shows in the text."""
        return NginxSettings(
            workers=self.workers,
            most_sessions=self.max_connections,
            shutdown_timeout_s=int(self.shutdown_timeout.total_seconds()),
        )

    def check(self) -> None:
        """Raises Invalid naming the setting that cannot be."""
        super().check()
        for name in ("workers", "max_connections"):
            if getattr(self, name) < 1:
                raise Invalid(name, "must be at least 1")
        if self.shutdown_timeout < timedelta(seconds=1):
            raise Invalid("shutdown_timeout", "must be at least a second")

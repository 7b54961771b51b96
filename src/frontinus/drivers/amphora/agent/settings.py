"""What an operator can set on any driver of our agent. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from frontinus.model.errors import Invalid

OWN = {"own": True}
"""Of settings that change nothing that is rendered or built: controllers of one cohort may differ in them."""


@dataclass(frozen=True, kw_only=True)
class AgentDriverSettings:
    """What [driver_options.NAME] holds for each of them. Every default serves a single machine."""

    state_dir: Path
    """The installation's state directory; used for what `authority` does not name."""

    authority: Path | None = None
    """Directory of the certificate authority and the heartbeat master key; None: `authority` in the state directory.
    Made on first use. All controllers of one installation need the same content: whoever has it may command the
    amphorae."""

    agent_port: int = 9443
    """TCP port of the agent on an amphora's management address; Octavia's."""

    controller_identity: str = "frontinus-controller"
    """DNS name in the controller's client certificate, and the only one that our agents accept."""

    heartbeat_destinations: tuple[str, ...] = ()
    """Where amphorae send their heartbeats, as `ip:port` or `[ip]:port`; one of them per beat, in turn."""

    heartbeat_interval: timedelta = timedelta(seconds=1)
    """Time between two heartbeats of an amphora. One second lets a dead amphora be noticed within a few."""

    accept_plain: bool = False
    """Accept Octavia's datagrams too, signed with the one shared key. They can be replayed, and whoever has one
    amphora's key can speak for all: only for images that know nothing else."""

    plain_heartbeat_key: str = field(default="", metadata={"secret": True})
    """The shared key of Octavia's datagrams; must not be empty when `accept_plain` is on."""

    plain_base_path: str = "/var/lib/octavia"
    """*text* Where agents that speak Octavia's plain protocol keep what they are given: Octavia's haproxy_amphora.base_path.
    Used for amphorae that are known to; `base_path`, where it is said, is for all."""

    server_certificate_validity: timedelta = timedelta(days=30)
    """How long an amphora's certificate is good. Renewed after half of it; also by every start of the amphora."""

    haproxy_command: str = "/usr/sbin/haproxy"
    """The program that agents run, as the amphora sees it."""

    nginx_command: str = "/usr/sbin/nginx"
    """The program that agents run for UDP listeners, as the amphora sees it; with its stream module."""

    network: str = "none"
    """Who gives an amphora its addresses: `none` means they are there already (the `process` place), `own` that its agent
    configures its interfaces. By default whatever the network driver is for: `own` for one that makes ports."""

    vrrp_advert_interval: timedelta = timedelta(milliseconds=100)
    """*text* How often the amphora of a pair that has the VIPs says so. After three missed adverts the other takes them:
    an amphora's death costs a third of a second with the default. Below 30 ms busy hosts are taken for dead ones."""

    keepalived_command: str = "/usr/sbin/keepalived"
    """The program that agents of a pair run for its VIPs, as the amphora sees it."""

    connect_timeout: timedelta = field(default=timedelta(seconds=5), metadata=OWN)
    """Until TCP and TLS to an agent are established."""

    apply_timeout: timedelta = field(default=timedelta(seconds=45), metadata=OWN)
    """For one apply. Above the agent's own limit for a reload (30 s), so that its answer is heard."""

    info_timeout: timedelta = field(default=timedelta(seconds=2), metadata=OWN)
    """For questions: the interface promises an answer within about two seconds."""

    retry_after: timedelta = field(default=timedelta(seconds=1), metadata=OWN)
    """What a Retry for an agent out of reach proposes; the controller backs off on top of it."""

    drain_timeout: timedelta = field(default=timedelta(seconds=10), metadata=OWN)
    """How long connections may go on before an amphora of a pair that has the VIPs gives them up, to be replaced: nobody
    notices this time, and what lasts longer is closed."""

    drain_pause: timedelta = field(default=timedelta(seconds=2.5), metadata=OWN)
    """How long, after that, what has begun may take while nobody new is let in. Clients who come meanwhile are answered by
    the other amphora, when they have asked again: after 1 s, and after 3 s where this took more than one. It ends as soon
    as nothing goes on, as a rule after a tenth of a second."""

    parallel_requests: int = field(default=1_000, metadata=OWN)
    """Requests under way to all agents together; each new one costs about 2 ms of CPU for TLS."""

    keep_alive: timedelta = field(default=timedelta(seconds=60), metadata=OWN)
    """How long an idle connection to an agent is kept. Below the agent's own idle time (120 s)."""

    remembered_texts: int = field(default=2_000, metadata=OWN)
    """Configurations known to be live that are kept in memory (a few kB each); others are read back when needed."""

    @property
    def authority_directory(self) -> Path:
        return self.state_dir / "authority" if self.authority is None else self.authority

    def check(self) -> None:
        """Raises Invalid naming the setting that cannot be."""
        if self.accept_plain and not self.plain_heartbeat_key:
            raise Invalid("plain_heartbeat_key", "accept_plain needs a key: without one anybody could report anything")
        for name in ("parallel_requests", "remembered_texts"):
            if getattr(self, name) < 1:
                raise Invalid(name, "must be at least 1")
        if not self.plain_base_path.startswith("/"):
            raise Invalid("plain_base_path", "must begin with a slash")
        if self.network not in ("none", "own"):
            raise Invalid("network", "must be none or own")
        if not 0 < self.agent_port < 65_536:
            raise Invalid("agent_port", "must be a port number")
        if not timedelta(milliseconds=10) <= self.vrrp_advert_interval <= timedelta(seconds=40):
            raise Invalid("vrrp_advert_interval", "must be from 10 ms to 40 s")
        for name in ("heartbeat_interval", "server_certificate_validity", "connect_timeout", "apply_timeout"):
            if getattr(self, name) <= timedelta(0):
                raise Invalid(name, "must be more than nothing")
        for name in ("drain_timeout", "drain_pause"):
            if not timedelta(0) <= getattr(self, name) <= timedelta(minutes=10):
                raise Invalid(name, "must be from 0 to 10 minutes")

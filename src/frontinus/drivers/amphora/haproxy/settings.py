"""What an operator can set on the HAProxy driver. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from frontinus.drivers.amphora.agent.stream import NginxSettings
from frontinus.model.errors import Invalid


@dataclass(frozen=True, kw_only=True)
class HaproxySettings:
    """[driver_options.haproxy] in the configuration file. Every default serves a single machine.

    Fields that show in the rendered text (marked *text*) change every digest: the next converge of each load balancer
    pushes a reload."""

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

    server_certificate_validity: timedelta = timedelta(days=30)
    """How long an amphora's certificate is good. Renewed after half of it; also by every start of the amphora."""

    base_path: str = ""
    """*text* The agent's directory, for paths in the configuration. Empty: relative paths, which our agent resolves.
    Genuine Octavia images need /var/lib/octavia."""

    haproxy_command: str = "/usr/sbin/haproxy"
    """The program that agents run, as the amphora sees it."""

    nginx_command: str = "/usr/sbin/nginx"
    """The program that agents run for UDP listeners, as the amphora sees it; with its stream module."""

    network: str = "none"
    """Who gives an amphora its addresses: `none` means they are there already (the `process` place)."""

    connect_timeout: timedelta = timedelta(seconds=5)
    """Until TCP and TLS to an agent are established."""

    apply_timeout: timedelta = timedelta(seconds=45)
    """For one apply. Above the agent's own limit for a reload (30 s), so that its answer is heard."""

    info_timeout: timedelta = timedelta(seconds=2)
    """For questions: the interface promises an answer within about two seconds."""

    retry_after: timedelta = timedelta(seconds=1)
    """What a Retry for an agent out of reach proposes; the controller backs off on top of it."""

    parallel_requests: int = 1_000
    """Requests under way to all agents together; each new one costs about 2 ms of CPU for TLS."""

    keep_alive: timedelta = timedelta(seconds=60)
    """How long an idle connection to an agent is kept. Below the agent's own idle time (120 s)."""

    remembered_texts: int = 2_000
    """Configurations known to be live that are kept in memory (a few kB each); others are read back when needed."""

    max_connections: int = 50_000
    """*text* Connections of one load balancer at most, lowered by HAProxy itself to what the process may have
    (RLIMIT_NOFILE). Never a fixed `maxconn`: HAProxy refuses to start when the limit forbids it."""

    threads: int = 1
    """*text* HAProxy threads per amphora. One costs least for many small load balancers on one machine, and a request
    costs no more in a thread of its own."""

    stick_table_size: int = 100_000
    """*text* Clients, or sessions of an application, that each pool with SOURCE_IP or APP_COOKIE persistence remembers;
    the longest unused gives way. About 200 bytes each, taken as they come."""

    hard_stop_after: timedelta = timedelta(minutes=30)
    """*text* How long connections may go on in a worker that a reload replaced; then they are cut. An old worker costs
    3 to 10 MB and no CPU; should they hold too much memory, the agent ends the oldest (its old_workers_memory)."""

    max_old_workers: int = 1_000
    """*text* Reloads that an old worker may outlive; older ones are ended with their connections. High, because a
    number says nothing of how old a connection is; time and memory are what bound them."""

    tenant_log_targets: tuple[str, ...] = ()
    """*text* Syslog receivers of tenants' flow logs, as `192.0.2.1:514` or `[2001:db8::1]:514`. Each gets every message.
    Empty: no flow logs."""

    admin_log_targets: tuple[str, ...] = ()
    """*text* Syslog receivers of HAProxy's own messages of level notice and above: members that go up or down, and the
    like. Each gets every message. Empty: none are sent."""

    log_protocol: str = "UDP"
    """*text* `UDP`, or `TCP`: then up to a megabyte of messages waits in the amphora for a receiver that is away."""

    user_log_facility: int = 0
    """*text* Local facility of flow logs, from 0 to 7."""

    administrative_log_facility: int = 1
    """*text* Local facility of HAProxy's own messages, from 0 to 7."""

    connection_logging: bool = True
    """*text* Whether there are flow logs, where there are receivers for them."""

    user_log_format: str = (
        "{{ project_id }} {{ lb_id }} %f %ci %cp %t %{+Q}r %ST %B %U %[ssl_c_verify] %{+Q}[ssl_c_s_dn] %b %s %Tt %tsc"
    )
    """*text* A flow log's line: HAProxy's log-format, with the tokens `{{ project_id }}` and `{{ lb_id }}`. What HAProxy
    knows of HTTP only (as %r and %ST) is `-` for other listeners. Octavia's default."""

    max_datagram_sessions: int = 8_192
    """*text* UDP sessions of one load balancer at most; one is a client's address and port, until it was idle for the
    listener's timeout. About 1 kB of memory is set aside for each."""

    def nginx(self) -> NginxSettings:
        """What of this shows in the text of nginx."""
        return NginxSettings(
            workers=self.threads,
            most_sessions=self.max_datagram_sessions,
            shutdown_timeout_s=int(self.hard_stop_after.total_seconds()),
        )

    @property
    def authority_directory(self) -> Path:
        return self.state_dir / "authority" if self.authority is None else self.authority

    def check(self) -> None:
        """Raises Invalid naming the setting that cannot be."""
        if self.accept_plain and not self.plain_heartbeat_key:
            raise Invalid("plain_heartbeat_key", "accept_plain needs a key: without one anybody could report anything")
        for name in (
            "threads",
            "max_connections",
            "max_datagram_sessions",
            "max_old_workers",
            "parallel_requests",
            "remembered_texts",
            "stick_table_size",
        ):
            if getattr(self, name) < 1:
                raise Invalid(name, "must be at least 1")
        if not 0 < self.agent_port < 65_536:
            raise Invalid("agent_port", "must be a port number")
        for name in ("heartbeat_interval", "server_certificate_validity", "connect_timeout", "apply_timeout"):
            if getattr(self, name) <= timedelta(0):
                raise Invalid(name, "must be more than nothing")
        if self.hard_stop_after < timedelta(seconds=1):
            raise Invalid("hard_stop_after", "must be at least a second")

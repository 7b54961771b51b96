"""What an operator can set on the HAProxy driver. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from frontinus.drivers.amphora.agent.lvs import BALANCERS
from frontinus.drivers.amphora.agent.settings import AgentDriverSettings
from frontinus.drivers.amphora.agent.stream import NginxSettings
from frontinus.drivers.amphora.haproxy.log_options import check_logs
from frontinus.drivers.amphora.haproxy.memory import FEWEST_CONNECTIONS
from frontinus.model.errors import Invalid


@dataclass(frozen=True, kw_only=True)
class HaproxySettings(AgentDriverSettings):
    """[driver_options.haproxy] in the configuration file. Every default serves a single machine.

    Fields that show in the rendered text (marked *text*) change every digest: the next converge of each load balancer
    pushes a reload."""

    base_path: str = ""
    """*text* The agent's directory, for paths in the configuration. Empty: relative paths, which our agent resolves.
    Genuine Octavia images need /var/lib/octavia, and since they take no files but certificates, `allowed_cidrs` and
    values of L7 rules are then in the text itself, and change by a reload."""

    datagram_balancer: str = "nginx"
    """*text* What carries UDP on the amphorae: `nginx`, or `lvs`, which carries SCTP too and takes a kernel with
    ip_vs. Not said:
    `lvs` where the compute driver's places have one (`qemu`)."""

    max_connections: int = 50_000
    """*text* Connections of one load balancer at most, lowered by HAProxy itself to what the process may have
    (RLIMIT_NOFILE). Never a fixed `maxconn`: HAProxy refuses to start when the limit forbids it."""

    threads: int = 1
    """*text* HAProxy threads per amphora. One costs least for many small load balancers on one machine, and a request
    costs no more in a thread of its own."""

    stick_table_size: int = 100_000
    """*text* Clients, or sessions of an application, that each pool with SOURCE_IP or APP_COOKIE persistence remembers;
    the longest unused gives way. About 200 bytes each, taken as they come."""

    table_keeper: bool = True
    """*text* Whether what pools with SOURCE_IP or APP_COOKIE persistence learnt outlives the death of HAProxy on an amphora
    that stands alone: a second HAProxy that serves nobody is told of it. 5 MB and the tables once more, and some
    microseconds for each request that such a pool gets. Of a pair, one amphora keeps it for the other."""

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

    def nginx(self, threads: int | None = None, max_connections: int | None = None) -> NginxSettings:
        """What of this shows in the text of nginx, and of what a flavor says: more sessions than `max_datagram_sessions`,
        for which memory is set aside at once, it cannot give."""
        return NginxSettings(
            workers=threads or self.threads,
            most_sessions=min(self.max_datagram_sessions, max_connections or self.max_datagram_sessions),
            shutdown_timeout_s=int(self.hard_stop_after.total_seconds()),
        )

    def check(self) -> None:
        """Raises Invalid naming the setting that cannot be."""
        super().check()
        check_logs(self)
        if self.datagram_balancer not in BALANCERS:
            raise Invalid("datagram_balancer", f"must be {' or '.join(BALANCERS)}, not {self.datagram_balancer!r}")
        for name in ("threads", "max_connections", "max_datagram_sessions", "max_old_workers", "stick_table_size"):
            if getattr(self, name) < 1:
                raise Invalid(name, "must be at least 1")
        if self.max_connections < FEWEST_CONNECTIONS:
            raise Invalid("max_connections", f"must be at least {FEWEST_CONNECTIONS}: HAProxy starts with no fewer")
        if self.hard_stop_after < timedelta(seconds=1):
            raise Invalid("hard_stop_after", "must be at least a second")

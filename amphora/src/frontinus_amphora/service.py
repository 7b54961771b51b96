"""How haproxy is started and stopped, hidden behind one small interface.

`child_service.py` runs it as a process of its own session; one for systemd units would stand beside it. A service
knows processes and sockets; it never decides whether haproxy should run: load_balancer.py does.
"""

from typing import NamedTuple, Protocol


class Places(NamedTuple):
    """Where the files of one load balancer are."""

    directory: str
    config: str
    last_config: str  # the one before, while a new one is not yet proven
    scratch: str
    pid: str
    state: str  # server states, by default
    record: str  # what load_balancer.py must remember
    service_record: str  # what the service must remember
    manifest: str  # of the files beside the configuration (companions.py)
    files: str  # directory of those that are not private
    trial: str  # directory in which a new set of files is tried
    output: str  # FIFO of what haproxy prints
    stats_socket: str  # by default; the configuration decides
    master_socket: str
    keeper_config: str  # of the table keeper (table_keeper.py)
    keeper_record: str
    keeper_output: str
    keeper_socket: str

    @classmethod
    def of(cls, base_path: str, load_balancer_id: str) -> "Places":
        directory = f"{base_path}/{load_balancer_id}"
        return cls(
            directory=directory,
            config=f"{directory}/haproxy.cfg",
            last_config=f"{directory}/haproxy.cfg.last",
            scratch=f"{directory}/haproxy.cfg.new",
            pid=f"{directory}/{load_balancer_id}.pid",
            state=f"{directory}/servers-state",
            record=f"{directory}/agent.json",
            service_record=f"{directory}/service.json",
            manifest=f"{directory}/files.json",
            files=f"{directory}/files",
            trial=f"{directory}/trial",
            output=f"{directory}/output",
            # Relative to base_path, where agent and haproxy work: a socket's path has room for 107 bytes.
            stats_socket=f"{load_balancer_id}.sock",
            master_socket=f"{load_balancer_id}.m",
            keeper_config=f"{directory}/keeper.cfg",
            keeper_record=f"{directory}/keeper.json",
            keeper_output=f"{directory}/keeper-output",
            keeper_socket=f"{load_balancer_id}.k",
        )


class Service(Protocol):
    """One haproxy. Calls are made by one thread at a time, except the ones marked *any thread*."""

    def adopt(self) -> int | None:
        """Find the haproxy that an earlier agent left running; its master's pid, or None. Safe to repeat."""

    def start(self) -> None:
        """Start it from the file on disk; strays of a dead one are ended first. A worker serves when this returns.

        Raises ServiceFailed, and then nothing runs."""

    def reload(self) -> None:
        """Make the file on disk the running configuration. The new worker serves when this returns.

        Raises ServiceFailed: either the old worker still serves, or all of it died (see `pid`)."""

    def stop(self, *, at_once: bool = False) -> None:
        """End it with all its workers; one that does not run is fine. Nothing of it is left when this returns.

        `at_once` asks no more whether it would go by itself: it hangs."""

    def pid(self) -> int | None:
        """The master's pid while it runs. *Any thread.*"""

    def workers(self) -> int:
        """Workers, old ones included. *Any thread.*"""

    def has_died(self) -> bool:
        """True once after the running haproxy died by itself; its remains are reaped."""

    def attend(self) -> float | None:
        """Do what is due; the time (monotonic) when something will be due, None when nothing will."""

    def descriptors(self) -> dict[int, str]:
        """What to poll for: readable means `output` (call drain_output) or `death` (call has_died). *Any thread.*"""

    def drain_output(self) -> str:
        """Take what haproxy printed meanwhile. Never blocks. *Any thread.*"""

    def close(self) -> None:
        """Let go without touching the processes."""

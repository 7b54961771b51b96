"""Database servers for tests and benches: PostgreSQL and MariaDB on a unix socket and a loopback port of their own, as an
unprivileged user, in a temporary directory; ended by their process id, and with the process that started them."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

START_TIMEOUT_S = 60


class Server(ABC):
    """One server with its data. `start` after `kill` is a restart on the same data, port and socket."""

    name: str
    user = "nobody"

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=f"frontinus-{self.name}-"))
        self.data = self.directory / "data"
        self.port = _free_port()
        self.process: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            shutil.chown(self.directory, self.user, pwd.getpwnam(self.user).pw_gid)

    @abstractmethod
    def prepare(self) -> None:
        """Make the data directory."""

    @abstractmethod
    def command(self) -> list[str]: ...

    @abstractmethod
    def url(self, database: str) -> str: ...

    @abstractmethod
    def query(self, text: str, database: str = "") -> list[list[str]]:
        """What the engine's own client answers, row by row."""

    @abstractmethod
    def answers(self) -> bool: ...

    def make_database(self, name: str) -> str:
        """An empty database; its URL."""
        self.query(f"CREATE DATABASE {name}")
        return self.url(name)

    def start(self) -> None:
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, **self._identity()
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not start: {(self.directory / 'log').read_text()[-2000:]}")
            time.sleep(0.02)

    def kill(self) -> None:
        """As when the machine's power goes: no farewell. Its children end by themselves."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def tell(self, number: signal.Signals) -> None:
        """To all processes of it: SIGSTOP for a server that hangs, SIGCONT for its end."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        pids = (self.process.pid, *map(int, children))
        for pid in pids:
            os.kill(pid, number)
        # Told is not stopped: a thread on the other processor may answer one more question.
        while number is signal.SIGSTOP and not all(map(_is_stopped, pids)):
            time.sleep(0.001)

    def remove(self) -> None:
        self._end(signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            check=check,
            text=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
            **self._identity(),
        )

    def _end(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(60)
            self.process = None

    def _identity(self) -> dict[str, Any]:
        where = {"cwd": self.directory, "env": {"PATH": os.environ["PATH"], "HOME": str(self.directory)}}
        if os.geteuid() != 0:
            return where
        return {**where, "user": self.user, "group": pwd.getpwnam(self.user).pw_gid, "extra_groups": []}


class Postgresql(Server):
    name = "postgresql"

    def prepare(self) -> None:
        initdb = _program("initdb", "/usr/lib/postgresql/*/bin")
        self.run(initdb, "-D", str(self.data), "-U", "frontinus", "-A", "trust", "-E", "UTF8", "--no-sync")

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.directory),
            "fsync": "off",  # a killed process loses nothing without it; only a machine does
            "max_connections": "200",
            "log_min_messages": "fatal",
        }
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        return [_program("postgres", "/usr/lib/postgresql/*/bin"), "-D", str(self.data), *options]

    def stop(self) -> None:
        """PostgreSQL's "fast" shutdown, as a service manager does it: SIGTERM would wait until every client has gone."""
        self._end(signal.SIGINT)

    def url(self, database: str) -> str:
        return f"postgresql://frontinus:secret@127.0.0.1:{self.port}/{database}"

    def query(self, text: str, database: str = "postgres") -> list[list[str]]:
        psql = _program("psql", "/usr/lib/postgresql/*/bin")
        where = ["-h", str(self.directory), "-p", str(self.port), "-U", "frontinus", "-d", database or "postgres"]
        answer = self.run(psql, *where, "-XAtq", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-c", text)
        return [line.split("\t") for line in answer.stdout.splitlines()]

    def answers(self) -> bool:
        ready = _program("pg_isready", "/usr/lib/postgresql/*/bin")
        return self.run(ready, "-q", "-h", str(self.directory), "-p", str(self.port), check=False).returncode == 0


class Mariadb(Server):
    name = "mariadb"

    def prepare(self) -> None:
        install = _program("mariadb-install-db", "/usr/bin")
        self.run(
            install,
            "--no-defaults",
            f"--datadir={self.data}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--innodb-flush-log-at-trx-commit=0",
        )

    def command(self) -> list[str]:
        return [
            _program("mariadbd", "/usr/sbin"),
            "--no-defaults",
            f"--datadir={self.data}",
            f"--socket={self.directory / 'socket'}",
            f"--pid-file={self.directory / 'pid'}",
            "--bind-address=127.0.0.1",
            f"--port={self.port}",
            # The same as fsync=off above: the log is written at each commit, and not waited for.
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-buffer-pool-size=256M",
            # What Debian sets, and not what we want: tables must be exact whatever the server's default is.
            "--character-set-server=utf8mb4",
            "--collation-server=utf8mb4_general_ci",
        ]

    def url(self, database: str) -> str:
        return f"mariadb://frontinus:secret@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        super().start()
        self.query(
            "CREATE USER IF NOT EXISTS frontinus@'127.0.0.1' IDENTIFIED BY 'secret';"
            "GRANT ALL ON *.* TO frontinus@'127.0.0.1';"
        )

    def query(self, text: str, database: str = "") -> list[list[str]]:
        client = _program("mariadb", "/usr/bin")
        where = ["--no-defaults", f"--socket={self.directory / 'socket'}", "-uroot", "-BN", "-e", text]
        answer = self.run(client, *where, *([database] if database else []))
        return [line.split("\t") for line in answer.stdout.splitlines()]

    def answers(self) -> bool:
        try:
            self.query("SELECT 1")
        except subprocess.CalledProcessError:
            return False
        return True


SERVERS: dict[str, type[Server]] = {"postgresql": Postgresql, "mariadb": Mariadb}


@contextlib.contextmanager
def serving(name: str) -> Iterator[Server]:
    """A fresh server, gone afterwards with its data."""
    server = SERVERS[name]()
    try:
        server.prepare()
        server.start()
        yield server
    finally:
        server.remove()


def empty(server: Server, database: str) -> None:
    """Remove every row; the schema stays."""
    tables = {
        "postgresql": "SELECT tablename FROM pg_tables WHERE schemaname = 'public'",
        "mariadb": "SHOW TABLES",
    }
    unguarded = {"postgresql": "SET session_replication_role = replica", "mariadb": "SET foreign_key_checks = 0"}
    names = [row[0] for row in server.query(tables[server.name], database) if row[0] != "alembic_version"]
    server.query(";".join([unguarded[server.name], *(f"DELETE FROM {name}" for name in names)]), database)


def _program(name: str, where: str) -> str:
    """Debian keeps PostgreSQL's programs, one folder for each version, out of PATH. Raises FileNotFoundError."""
    found = sorted(Path("/").glob(f"{where.lstrip('/')}/{name}"))
    if found:
        return str(found[-1])
    program = shutil.which(name)
    if program is None:
        raise FileNotFoundError(f"{name} is not installed: run scripts/system-packages databases")
    return program


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_stopped(pid: int) -> bool:
    """All threads of it (proc(5), stat: the state follows the name in parentheses)."""
    tasks = Path(f"/proc/{pid}/task").glob("*/stat")
    return all(task.read_text().rpartition(")")[2].split()[0] == "T" for task in tasks)

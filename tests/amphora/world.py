"""What an agent is tested against: certificates, a controller that speaks REST, members that answer, a crowd of clients.

No test helper knows the agent's inside; they see what a controller, a client and the kernel see.
"""

import base64
import contextlib
import datetime as dt
import hashlib
import http.client
import http.server
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

SOURCES = Path(__file__).resolve().parents[2] / "amphora" / "src"
ADDRESS = "127.83.0.1"  # of test listeners and agents
MEMBER_ADDRESS = "127.83.0.2"


T = TypeVar("T")


def wait_for(what: Callable[[], T], timeout: float = 10.0) -> T:
    """Look until the fact is there; its value."""
    deadline = time.monotonic() + timeout
    while True:
        value = what()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {timeout} s")
        time.sleep(0.005)


def free_port(address: str = ADDRESS) -> int:
    with socket.socket() as trial:
        trial.bind((address, 0))
        return int(trial.getsockname()[1])


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


# Certificates


class Authority:
    """Issues certificates into a directory."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = _certificate(name, None, self.key, name, self.key, True)
        self.path = directory / f"{name}.pem"
        self.path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        self.name = name

    def issue(
        self,
        file: str,
        identity: str,
        *,
        usage: x509.ObjectIdentifier | None = None,
        ends: dt.timedelta = dt.timedelta(days=1),
    ) -> Path:
        """A file with certificate and key for this DNS name, good for `usage` only where one is given."""
        path = self.directory / f"{file}.pem"
        path.write_bytes(self.issue_pem(identity, usage=usage, ends=ends))
        return path

    def issue_pem(
        self,
        identity: str,
        *,
        usage: x509.ObjectIdentifier | None = None,
        ends: dt.timedelta = dt.timedelta(days=1),
    ) -> bytes:
        key = ec.generate_private_key(ec.SECP256R1())
        made = _certificate(identity, identity, key, self.name, self.key, False, usage, ends)
        return made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )


def _certificate(
    subject: str,
    san: str | None,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    ca: bool,
    usage: x509.ObjectIdentifier | None = None,
    ends: dt.timedelta = dt.timedelta(days=1),
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + ends)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    if san is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(san)]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


class Pki(NamedTuple):
    server_ca: Authority
    client_ca: Authority
    other_ca: Authority
    client: Path  # of the right controller
    impostor: Path  # right authority, other identity
    foreigner: Path  # other authority, right identity


def make_pki(directory: Path) -> Pki:
    server_ca, client_ca, other_ca = (Authority(directory, name) for name in ("server-ca", "client-ca", "other-ca"))
    return Pki(
        server_ca,
        client_ca,
        other_ca,
        client_ca.issue("client", "controller.frontinus"),
        client_ca.issue("impostor", "controller.frontinus.example"),
        other_ca.issue("foreigner", "controller.frontinus"),
    )


# The controller's side


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class SentFile(NamedTuple):
    """A file beside a configuration, as a driver sends it; `sent` False: only named, since it is there already."""

    name: str
    content: bytes
    private: bool = True
    sent: bool = True

    def row(self) -> dict[str, object]:
        row: dict[str, object] = {
            "name": self.name,
            "sha256": hashlib.sha256(self.content).hexdigest(),
            "private": self.private,
        }
        return {**row, "content": base64.b64encode(self.content).decode()} if self.sent else row


def digest_of(config: str, files: tuple[SentFile, ...] = ()) -> str:
    """As docs/reference/agent-extension.md has it."""
    text = hashlib.sha256(config.encode()).hexdigest()
    lines = ""
    for each in sorted(files, key=lambda file: file.name):
        lines += f"{each.name} {each.row()['sha256']} {'private' if each.private else 'public'}\n"
    return hashlib.sha256(f"{text}\n{lines}".encode()).hexdigest() if lines else text


class Controller:
    """Speaks REST to one agent over one kept connection, made anew when lost."""

    def __init__(self, port: int, pki: Pki, client: Path | None = None, version: ssl.TLSVersion | None = None) -> None:
        self.port = port
        self.context = ssl.create_default_context(cafile=str(pki.server_ca.path))
        self.context.check_hostname = False
        if client is not None:
            self.context.load_cert_chain(client)
        if version is not None:
            if version < ssl.TLSVersion.TLSv1_2:
                self.context.set_ciphers("ALL:@SECLEVEL=0")  # OpenSSL would not even ask otherwise
            self.context.minimum_version = self.context.maximum_version = version
        self._connection: http.client.HTTPSConnection | None = None

    def call(
        self, method: str, path: str, body: bytes | str | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        if self._connection is None:
            self._connection = http.client.HTTPSConnection(ADDRESS, self.port, timeout=40, context=self.context)
        try:
            content = body.encode() if isinstance(body, str) else body
            self._connection.request(method, path, content, headers or {})
            response = self._connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        except (OSError, http.client.HTTPException):
            self.close()
            raise

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def apply(
        self,
        load_balancer_id: str,
        config: str,
        *,
        base: str | None = None,
        commands: tuple[str, ...] = (),
        reload: bool = False,
        files: tuple[SentFile, ...] = (),
        changed: dict[str, object] | None = None,
        fence: int | None = None,
    ) -> Answer:
        digest = digest_of(config, files)
        content: dict[str, object] = {
            "config": config,
            "digest": digest,
            "base": base,
            "commands": list(commands),
            "reload": reload,
        }
        if files:
            content["files"] = [each.row() for each in files]
        path = f"/frontinus/1/loadbalancer/{load_balancer_id}" + ("" if fence is None else f"?fence={fence}")
        return self.call("PUT", path, json.dumps({**content, **(changed or {})}))

    def state(self, load_balancer_id: str) -> Any:
        return self.call("GET", f"/frontinus/1/loadbalancer/{load_balancer_id}").json


class Amphora:
    """A place with an agent: a directory of its own, and a process that can be killed and started again."""

    def __init__(
        self,
        pki: Pki,
        *,
        extra: str = "",
        beat: str = "",
        identity: str = "controller.frontinus",
        on_disk: bool = False,
        namespace: str = "",
        ears: Callable[[], "Ears"] | None = None,
    ) -> None:
        self.namespace = namespace
        self.pki = pki
        self.id = str(uuid.uuid4())
        self.load_balancer_id = str(uuid.uuid4())
        self.directory = Path(tempfile.mkdtemp(prefix="fa-", dir="/tmp"))
        self.base = self.directory / ("a-place-deeper-than-a-socket-name-may-be-long" * 3)
        self.memory = Path(tempfile.mkdtemp(prefix="fa-", dir="/dev/shm"))
        self.certificates = (self.directory if on_disk else self.memory) / "c"
        self.server_cert = self.directory / "server.pem"
        self.server_cert.write_bytes(pki.server_ca.issue_pem(self.id))
        self.client_ca = self.directory / "client_ca.pem"
        self.client_ca.write_bytes(pki.client_ca.path.read_bytes())
        self.ears = (ears or Ears)()
        self.config = self.directory / "agent.conf"
        self.text = f"""[DEFAULT]
debug = False
[haproxy_amphora]
base_path = {self.base}
base_cert_dir = {self.certificates}
bind_host = {ADDRESS}
bind_port = {free_port() if not namespace else 9443}
some_key_of_octavia = 1
[health_manager]
controller_ip_port_list = 127.0.0.1:{self.ears.port}
heartbeat_interval = 0.5
heartbeat_key = insecure
{beat or "heartbeat_format = envelope"}
[amphora_agent]
agent_server_ca = {self.client_ca}
agent_server_cert = {self.server_cert}
amphora_id = {self.id}
[frontinus]
controller_identity = {identity}
network = none
{extra}
"""
        self.config.write_text(self.text)
        self.log = self.directory / "agent.log"
        self.program: tuple[str, ...] = ("-m", "frontinus_amphora", "--config")
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.controllers: list[Controller] = []

    def start(self) -> "Amphora":
        offset = self.log.stat().st_size if self.log.exists() else 0
        environment = {**os.environ, "PYTHONPATH": str(SOURCES), "FRONTINUS_AMPHORA_ID": self.id}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(("ip", "netns", "exec", self.namespace) if self.namespace else ()),
                    *(sys.executable, *self.program, str(self.config)),
                ],
                stderr=log,
                env=environment,
            )

        def port() -> int:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            for line in self.log.read_text()[offset:].splitlines():
                if " agent listening " in line:
                    return int(line.partition(" port=")[2].split()[0])
            return 0

        self.port = wait_for(port)
        return self

    def controller(self, client: Path | None = None, **more: Any) -> Controller:
        made = Controller(self.port, self.pki, client or self.pki.client, **more)
        self.controllers.append(made)
        return made

    def kill(self, number: int = signal.SIGKILL) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(10)

    def close(self) -> None:
        """End the agent, then everything that bears its mark; fails when an ended agent left a process of its own."""
        for controller in self.controllers:
            controller.close()
        if self.process is not None and self.process.poll() is None:
            self.kill(signal.SIGTERM)
        for pid in self.haproxies():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not self.haproxies())
        self.ears.close()
        shutil.rmtree(self.directory)
        shutil.rmtree(self.memory, ignore_errors=True)

    def haproxies(self) -> list[int]:
        """Every living process but the agent that carries this amphora's mark in its environment, or, since nginx
        writes its title over that, prints to a file of this place."""
        mark = f"FRONTINUS_AMPHORA_ID={self.id}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and (self.process is None or int(entry.name) != self.process.pid):
                try:
                    environment = (entry / "environ").read_bytes().split(b"\0")
                    output = str((entry / "fd" / "2").readlink())
                except OSError:
                    continue
                if (mark in environment or output.startswith(f"{self.base}/")) and is_alive(int(entry.name)):
                    found.append(int(entry.name))
        return found

    # Configurations as a driver would render them

    def render(
        self,
        listeners: dict[str, int],
        servers: dict[str, int] | None = None,
        *,
        pool_id: str = "",
        weights: dict[str, int] | None = None,
        server_options: str = "",
        more: str = "",
        address: str = ADDRESS,
    ) -> str:
        """An HTTP load balancer: each listener (id: port) has the same servers (member id: port) in its backend."""
        lb = self.load_balancer_id
        text = f"""global
    daemon
    stats socket unix@{lb}.sock mode 0600 level admin expose-fd listeners
    server-state-file {lb}/servers-state
    maxconn 500
    nbthread 1
    hard-stop-after 30s
defaults
    mode http
    option idle-close-on-response
    timeout connect 2s
    timeout client 20s
    timeout server 20s
    load-server-state-from-file global
"""
        for listener_id, port in listeners.items():
            text += f"frontend {listener_id}\n    mode http\n    bind {address}:{port}\n{more}"
            if servers is not None:
                text += f"    default_backend {pool_id}:{listener_id}\n"
        for listener_id in listeners:
            if servers is not None:
                text += f"backend {pool_id}:{listener_id}\n    balance roundrobin\n"
                for name, port in servers.items():
                    weight = (weights or {}).get(name, 1)
                    text += f"    server {name} {MEMBER_ADDRESS}:{port} weight {weight} {server_options}\n"
        return text


class Ears:
    """Takes the datagrams that an agent sends."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = int(self.socket.getsockname()[1])

    def next(self, timeout: float = 5.0) -> bytes:
        self.socket.settimeout(timeout)
        return self.socket.recv(65536)

    def drain(self) -> None:
        self.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.socket.recv(65536)

    def close(self) -> None:
        self.socket.close()


# Members and clients


class Member:
    """An HTTP server that answers its own name; `slow` answers wait until released."""

    def __init__(self, name: str, port: int = 0) -> None:
        self.name = name
        self.release = threading.Event()
        self.waiting = threading.Event()
        member = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                if self.path == "/slow":
                    member.waiting.set()
                    member.release.wait(20)
                content = member.name.encode()
                self.wfile.write(
                    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: keep-alive\r\n\r\n" % len(content) + content
                )

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        class Quiet(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

        self.server = Quiet((MEMBER_ADDRESS, port), Handler)
        self.port = int(self.server.server_address[1])
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.release.set()
        self.server.shutdown()
        self.server.server_close()


def get(port: int, path: str = "/", timeout: float = 5.0) -> str:
    """One request on a new connection; what the member said."""
    connection = http.client.HTTPConnection(ADDRESS, port, timeout=timeout)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read().decode()
        if response.status != 200:
            raise OSError(f"{response.status}: {body}")
        return body
    finally:
        connection.close()


def serves(port: int, timeout: float = 1.0) -> str | None:
    try:
        return get(port, timeout=timeout)
    except (OSError, http.client.HTTPException):
        return None


class Crowd:
    """Clients that never stop asking: some keep their connection, some make a new one each time. Failures are kept.

    A kept connection which the server closed between two requests is not a failure: HTTP allows it, and the client
    makes a new one; a request that was sent and not answered is."""

    def __init__(self, port: int, kept: int = 3, fresh: int = 2) -> None:
        self.port = port
        self.failures: list[str] = []
        self.answers = 0
        self.names: set[str] = set()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(index < kept,)) for index in range(kept + fresh)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        wait_for(lambda: self.answers > 20)
        return self

    def __exit__(self, *_: object) -> None:
        before = self.answers
        with contextlib.suppress(AssertionError):
            wait_for(lambda: self.answers > before + 50 or self.failures)
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, keep: bool) -> None:
        connection: socket.socket | None = None
        while not self._stop.is_set():
            try:
                if connection is None:
                    connection = socket.create_connection((ADDRESS, self.port), 5.0)
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                closing = "" if keep else "Connection: close\r\n"
                connection.sendall(f"GET / HTTP/1.1\r\nHost: x\r\n{closing}\r\n".encode())
                head, body = self._read(connection)
                if not head.startswith(b"HTTP/1.1 200"):
                    self.failures.append(head.decode()[:200])
                self.names.add(body.decode())
                self.answers += 1
                if not keep or b"connection: close" in head.lower():
                    connection.close()
                    connection = None
            except OSError as error:
                self.failures.append(f"{'kept' if keep else 'new'}: {error!r}")
                if connection is not None:
                    connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def _read(self, connection: socket.socket) -> tuple[bytes, bytes]:
        data = b""
        while b"\r\n\r\n" not in data:
            part = connection.recv(65536)
            if not part:
                raise ConnectionError("closed without an answer")
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        while len(body) < length:
            body += connection.recv(65536)
        return head, body

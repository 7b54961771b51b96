"""Every route of the two protocols, as one table, and what each does. Translates between HTTP and the agent, no more.

The plain protocol's wire spellings (`loadbalancer`, `lb_id`) live here alone. Names from a path are matched whole
before they come near a file name. Contract: amphora-agent.yaml; ours: docs/reference/agent-extension.md.
"""

import base64
import hashlib
import ipaddress
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from frontinus_amphora import API_VERSION, EXTENSION_VERSION, __version__, facts, files, haproxy_cli, haproxy_text
from frontinus_amphora.agent import Agent
from frontinus_amphora.companions import NAME as FILE_NAME
from frontinus_amphora.companions import Companion, NotInMemory, in_memory
from frontinus_amphora.companions import digest as companions_digest
from frontinus_amphora.errors import AgentError, Invalid, Missing, ServiceFailed, Unsupported
from frontinus_amphora.http_wire import Request, Response, answer, default_error
from frontinus_amphora.interfaces import Interfaces
from frontinus_amphora.load_balancer import LoadBalancer
from frontinus_amphora.log import log
from frontinus_amphora.lvs import NAME, is_there
from frontinus_amphora.plugs import parse_network, parse_vip
from frontinus_amphora.settings import UUID, BadSettings
from frontinus_amphora.values import Change

ID = f"({UUID.pattern.replace('(', '(?:')})"
HEARTBEAT_KEY = re.compile(r"[A-Za-z0-9]{1,256}")
CERTIFICATE_NAME = re.compile(r"[A-Za-z0-9_-]+\.pem")
MOST_COMMANDS = 10_000
MOST_FILES = 10_000
FEATURES = [
    "apply",
    "state",
    "heartbeat-envelope",
    "files",
    "prepared",
    "identity",
    "identity-heartbeat-key",
    "memory",
    "fence",
    "shut",
]
OK = {"message": "OK"}

Handler = Callable[..., Response]


class Routes:
    """Any thread may call `respond`; it never raises."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.replace_identity: Callable[[bytes, bytes | None], None] = lambda *_: None  # the server sets it
        ours = f"/frontinus/{EXTENSION_VERSION}/loadbalancer/{ID}"
        table: tuple[tuple[str, str, Handler], ...] = (
            ("GET", "/", self._discover),
            ("GET", "/frontinus", self._discover_extension),
            ("GET", ours, self._state),
            ("PUT", ours, self._apply),
            ("PUT", f"{ours}/shut", self._shut),
            ("PUT", f"/frontinus/{EXTENSION_VERSION}/identity", self._replace_identity),
            ("PUT", f"/1.0/loadbalancer/{ID}/{ID}/haproxy", self._upload),
            ("GET", f"/1.0/loadbalancer/{ID}/haproxy", self._config),
            ("PUT", f"/1.0/loadbalancer/{ID}/certificates/([^/]*)", self._upload_certificate),
            ("GET", f"/1.0/loadbalancer/{ID}/certificates/([^/]*)", self._certificate_digest),
            ("DELETE", f"/1.0/loadbalancer/{ID}/certificates/([^/]*)", self._delete_certificate),
            ("PUT", f"/1.0/loadbalancer/{ID}/([^/]+)", self._control),
            ("DELETE", f"/1.0/listeners/{ID}", self._delete),
            ("GET", "/1.0/listeners", self._listeners),
            ("GET", "/1.0/info", self._info),
            ("GET", "/1.0/details", self._details),
            ("PUT", "/1.0/config", self._replace_settings),
            ("PUT", "/1.0/certificate", self._rotate_certificate),
            ("POST", "/1.0/plug/vip/([^/]+)", self._plug_vip),
            ("POST", "/1.0/plug/network", self._plug_network),
            ("GET", "/1.0/interface/([^/]+)", self._interface),
            ("PUT", "/1.0/interface/([^/]+)/rules", self._interface_rules),
            ("PUT", f"/1.0/listeners/{ID}/{ID}/udp_listener", self._without_lvs),
            ("GET", f"/1.0/listeners/{ID}/udp_listener", self._lvs_config),
            ("PUT", "/1.0/vrrp/upload", self._upload_vrrp),
            ("PUT", "/1.0/vrrp/([A-Za-z]+)", self._control_vrrp),
        )
        self._table = [(method, re.compile(path), handler) for method, path, handler in table]

    def respond(self, request: Request) -> Response:
        """Answer one request; whatever goes wrong becomes an answer, and what is our fault a log line."""
        try:
            return self._dispatch(request)
        except AgentError as error:
            return answer(error.status, error.body)
        except OSError as error:  # a full disk is for whoever reads the fault to see
            log("request failed", method=request.method, path=request.path, error=repr(error))
            return default_error(500, f"the agent failed at this request: {error.strerror or repr(error)}")
        except Exception as error:  # noqa: BLE001 - one request must not end the agent
            log("request failed", method=request.method, path=request.path, error=repr(error))
            return default_error(500, "the agent failed at this request; its log tells why")

    def _dispatch(self, request: Request) -> Response:
        known = False
        for method, path, handler in self._table:
            match = path.fullmatch(request.path)
            if match and method == request.method:
                return handler(request, *match.groups())
            known = known or match is not None
        if known or re.fullmatch(f"/1.0/listeners/{ID}", request.path):
            return default_error(405, "the method is not allowed for the requested URL")
        return default_error(404, "the requested URL was not found")

    # Discovery and facts

    def _discover(self, request: Request) -> Response:
        return answer(200, {"api_version": API_VERSION})

    def _discover_extension(self, request: Request) -> Response:
        nginx = self._agent.nginx.version()
        programs = {"nginx": nginx, "datagrams": nginx, "vrrp": self._agent.keepalived.version()}
        lvs = [NAME] if is_there(self._agent.keepalived) else []
        return answer(
            200,
            {
                "extension": EXTENSION_VERSION,
                "agent_version": __version__,
                "haproxy_version": self._agent.haproxy.version(),
                "nginx_version": programs["nginx"],
                "keepalived_version": programs["vrrp"],
                "features": [*FEATURES, *(name for name, version in programs.items() if version), *lvs],
            },
        )

    def _info(self, request: Request) -> Response:
        return answer(200, facts.info(self._agent.haproxy, self._agent.keepalived.version()))

    def _details(self, request: Request) -> Response:
        running = [each for each in self._agent.load_balancers() if each.is_running()]
        ids = sorted(row["uuid"] for row in self._listener_rows(running))
        directory = self._agent.settings.base_path
        keepalived = self._agent.keepalived.version()
        return answer(200, facts.details(self._agent.haproxy, keepalived, ids, len(running), directory))

    def _listeners(self, request: Request) -> Response:
        content = self._listener_rows([each for each in self._agent.load_balancers() if each.is_running()])
        return Response(200, json.dumps(content).encode())

    def _listener_rows(self, load_balancers: list[LoadBalancer]) -> list[dict[str, str]]:
        found = []
        for load_balancer in load_balancers:
            for row in haproxy_text.listeners(load_balancer.config() or ""):
                kind = "TERMINATED_HTTPS" if row.tls else row.mode.upper()
                found.append({"status": "ACTIVE", "uuid": row.listener_id, "type": kind})
        return sorted(found, key=lambda row: row["uuid"])

    # The extension

    def _state(self, request: Request, lb_id: str) -> Response:
        found = self._agent.find(lb_id)
        if found is None:
            return answer(
                200, {"digest": None, "running": False, "pid": None, "workers": 0, "removing": [], "files": []}
            )
        state = found.state()
        return answer(
            200,
            {
                "digest": state.digest,
                "running": state.running,
                "pid": state.pid,
                "workers": state.workers,
                "removing": list(state.removing),
                "files": [
                    {"name": each.name, "sha256": each.sha256, "private": each.private} for each in state.companions
                ],
            },
        )

    def _apply(self, request: Request, lb_id: str) -> Response:
        change = _parse_change(request.body)._replace(fence=request.fence)
        applied = self._agent.ensure(lb_id).apply(change)
        return answer(200, applied._asdict())

    def _shut(self, request: Request, lb_id: str) -> Response:
        found = self._agent.find(lb_id)
        return answer(200, {"shut": found is not None and found.shut()})

    # The plain protocol: haproxy

    def _upload(self, request: Request, amphora_id: str, lb_id: str) -> Response:
        try:
            text = request.body.decode()
        except UnicodeDecodeError as error:
            raise Invalid("Invalid request", "the configuration is not UTF-8") from error
        self._agent.ensure(lb_id).upload(text)
        return answer(202, OK, etag=_md5(request.body))

    def _config(self, request: Request, lb_id: str) -> Response:
        found = self._agent.find(lb_id)
        text = None if found is None else found.config()
        if text is None:
            raise _no_load_balancer(lb_id)
        content = text.encode()
        return Response(200, content, "text/plain; charset=utf-8", _md5(content))

    def _control(self, request: Request, lb_id: str, action: str) -> Response:
        word = action.lower()
        if word not in ("start", "stop", "reload"):
            raise Invalid("Invalid Request", f"Unknown action: {action}")
        found = self._agent.find(lb_id)
        if found is None:
            raise _no_load_balancer(lb_id)
        try:
            {"start": found.start, "stop": found.stop, "reload": found.reload}[word]()
        except ServiceFailed as error:
            error.body["message"] = f"Error {word}ing haproxy"
            raise
        return answer(202, {**OK, "details": f"Listener {lb_id} {word}ed"})

    def _delete(self, request: Request, object_id: str) -> Response:
        self._agent.delete(object_id, request.fence)
        return answer(200, OK)

    # Certificates

    def _upload_certificate(self, request: Request, lb_id: str, filename: str) -> Response:
        path = self._certificate_path(lb_id, filename)
        directory = path.rpartition("/")[0]
        files.make_directory(directory)
        if not in_memory(directory):
            raise NotInMemory(directory)
        files.write_atomically(path, request.body)
        return answer(200, OK, etag=_md5(request.body))

    def _certificate_digest(self, request: Request, lb_id: str, filename: str) -> Response:
        content = files.read(self._certificate_path(lb_id, filename))
        if content is None:
            raise Missing("Certificate Not Found", f"No certificate with filename: {filename}")
        return answer(200, {"md5sum": _md5(content)}, etag=_md5(content))

    def _delete_certificate(self, request: Request, lb_id: str, filename: str) -> Response:
        files.remove(self._certificate_path(lb_id, filename))
        return answer(200, OK)

    def _certificate_path(self, lb_id: str, filename: str) -> str:
        if not CERTIFICATE_NAME.fullmatch(filename):
            raise Invalid("Filename has wrong format")
        return f"{self._agent.settings.base_cert_dir}/{lb_id.lower()}/{filename}"

    def _rotate_certificate(self, request: Request) -> Response:
        self.replace_identity(request.body, None)
        return answer(202, OK)

    def _replace_identity(self, request: Request) -> Response:
        body = _parse_object(request.body)
        if body is None or set(body) - {"heartbeat_key"} != {"certificate", "client_ca"}:
            raise Invalid(
                "malformed body", "a JSON object of certificate, client_ca and perhaps heartbeat_key is needed"
            )
        if not all(isinstance(text, str) and text.isascii() for text in body.values()):
            raise Invalid("malformed body", "certificate and client_ca must be PEM")
        key = body.get("heartbeat_key")
        if key is not None and not HEARTBEAT_KEY.fullmatch(key):
            raise Invalid("malformed body", "heartbeat_key must be from 1 to 256 letters and digits")
        self.replace_identity(body["certificate"].encode(), body["client_ca"].encode())
        if key is not None:
            self._agent.replace_heartbeat_key(key)
        return answer(200, OK)

    # The agent itself

    def _replace_settings(self, request: Request) -> Response:
        try:
            self._agent.replace_settings(request.body.decode())
        except (BadSettings, UnicodeDecodeError) as error:
            return answer(500, {"message": "Configuration cannot be used", "details": str(error)})
        return answer(202, OK)

    # What belongs to whoever owns the network

    def _plug_vip(self, request: Request, vip: str) -> Response:
        try:
            address = ipaddress.ip_address(vip)
        except ValueError:
            raise Invalid("Invalid VIP") from None
        body = _parse_object(request.body)
        if body is None or any(key not in body for key in ("subnet_cidr", "gateway", "mac_address")):
            return default_error(400, "Invalid subnet information")
        interfaces = self._interfaces("plugging a VIP")
        if interfaces is None:
            return answer(202, {**OK, "details": f"VIP {address} is on this amphora already"})
        plug = parse_vip(str(address), body)
        name = interfaces.plug_vip(plug)
        return answer(202, {**OK, "details": f"VIPs {', '.join(x.address for x in plug.vips)} on interface {name}"})

    def _plug_network(self, request: Request) -> Response:
        body = _parse_object(request.body)
        if body is None or "mac_address" not in body:
            return default_error(400, "Invalid port information")
        interfaces = self._interfaces("plugging a network")
        if interfaces is None:
            return answer(202, {**OK, "details": "the networks are on this amphora already"})
        name = interfaces.plug_network(parse_network(body))
        return answer(202, {**OK, "details": f"Plugged on interface {name}"})

    def _interfaces(self, what: str) -> Interfaces | None:
        """None: addresses are there already, there is nothing to do."""
        if self._agent.settings.network == "unsupported":
            raise Unsupported(what, "an agent that owns its interfaces")
        return self._agent.interfaces

    def _interface(self, request: Request, address: str) -> Response:
        return answer(200, {**OK, "interface": _interface_of(address)})

    def _interface_rules(self, request: Request, address: str) -> Response:
        _interface_of(address)
        raise Unsupported("filtering an interface", "nftables")

    def _without_lvs(self, request: Request, *ids: str) -> Response:
        raise Unsupported("a UDP or SCTP listener", "keepalived with LVS")

    def _lvs_config(self, request: Request, listener_id: str) -> Response:
        raise Missing("UDP Listener Not Found", f"No UDP listener with UUID: {listener_id}")

    def _upload_vrrp(self, request: Request) -> Response:
        try:
            text = request.body.decode()
        except UnicodeDecodeError as error:
            raise Invalid("Invalid request", "the configuration is not UTF-8") from error
        self._agent.vrrp.upload(text)
        return answer(200, OK, etag=_md5(request.body))

    def _control_vrrp(self, request: Request, action: str) -> Response:
        vrrp = self._agent.vrrp
        done = {"start": vrrp.start, "reload": vrrp.start, "stop": vrrp.stop}.get(action.lower())
        if done is None:
            raise Invalid("Invalid Request", f"Unknown action: {action}")
        done()
        return answer(202, {**OK, "details": f"keepalived: {action.lower()} done"})


def _interface_of(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise Invalid("Invalid IP address") from None
    name = facts.interface_of(address)
    if name is None:
        raise Missing("Error interface not found for IP address")
    return name


def _no_load_balancer(lb_id: str) -> Missing:
    return Missing("Loadbalancer Not Found", f"No loadbalancer with UUID: {lb_id}")


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _parse_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object, or None when it is none."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _parse_change(body: bytes) -> Change:
    """Raises Invalid, naming what is wrong."""
    content = _parse_object(body)
    if content is None:
        raise Invalid("malformed body", "a JSON object is needed")
    unknown = sorted(set(content) - {"config", "digest", "base", "commands", "reload", "files"})
    if unknown:
        raise Invalid("malformed body", f"unknown keys: {', '.join(unknown)[:200]}")
    config, digest, base = content.get("config"), content.get("digest"), content.get("base")
    commands, reload = content.get("commands", []), content.get("reload", False)
    if not isinstance(config, str) or not isinstance(digest, str) or not isinstance(base, str | None):
        raise Invalid("malformed body", "config and digest must be text, base text or null")
    if not isinstance(commands, list) or not isinstance(reload, bool) or len(commands) > MOST_COMMANDS:
        raise Invalid("malformed body", f"commands must be a list of at most {MOST_COMMANDS}, reload a boolean")
    ready = []
    for command in commands:
        line = haproxy_cli.command_line(command) if isinstance(command, str) else None
        if line is None:
            raise Invalid("malformed body", "each of commands must be one runtime command")
        ready.append(line)
    try:
        config.encode()
    except UnicodeEncodeError as error:
        raise Invalid("malformed body", "config is not Unicode") from error
    companions = tuple(_parse_companions(content.get("files", [])))
    if companions_digest(config, companions) != digest:
        raise Invalid("digest mismatch", "sha256 of config and files is not digest")
    return Change(config, digest, base, tuple(ready), reload, companions)


def _parse_companions(rows: object) -> Iterator[Companion]:
    """Raises Invalid, naming what is wrong; never with a content."""
    if not isinstance(rows, list) or len(rows) > MOST_FILES:
        raise Invalid("malformed body", f"files must be a list of at most {MOST_FILES}")
    names = set()
    for row in rows:
        if not isinstance(row, dict) or set(row) - {"name", "sha256", "private", "content"}:
            raise Invalid("malformed body", "each of files must have name, sha256, private, and perhaps content")
        name, sha256, private, text = row.get("name"), row.get("sha256"), row.get("private"), row.get("content")
        if not isinstance(name, str) or not FILE_NAME.fullmatch(name) or name in names:
            raise Invalid("malformed body", "each of files must have a name of its own, of letters, digits and _.-")
        names.add(name)
        if not isinstance(sha256, str) or not isinstance(private, bool) or not isinstance(text, str | None):
            raise Invalid("malformed body", f"{name}: sha256 must be text, private a boolean, content text or null")
        content = None
        if text is not None:
            try:
                content = base64.b64decode(text, validate=True)
            except ValueError:
                raise Invalid("malformed body", f"{name}: content is not base64") from None
            if hashlib.sha256(content).hexdigest() != sha256:
                raise Invalid("digest mismatch", f"{name}: sha256 of its content is not sha256")
        yield Companion(name, sha256, private, content)

"""The agent's configuration file as one value.

INI, laid out as Octavia writes it (unknown keys there are ignored: they are for other programs), plus a `[frontinus]`
section of ours, where an unknown key is an error. Every path comes from the file, so that many agents share a machine.
"""

import configparser
import os
import re
from typing import NamedTuple

UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
OURS = frozenset(
    {
        "controller_identity",
        "network",
        "haproxy_user",
        "nginx_cmd",
        "keepalived_cmd",
        "idle_timeout",
        "reload_timeout",
        "hang_timeout",
        "old_workers_memory",
    }
)


class BadSettings(ValueError):
    """The configuration file cannot be used; the text says which key and why."""


class Settings(NamedTuple):
    """What the file says. Times are in seconds."""

    path: str  # of the file itself: PUT /1.0/config rewrites it
    amphora_id: str
    base_path: str  # configurations, sockets, pid files, counters
    base_cert_dir: str
    bind_host: str
    bind_port: int  # 0: the kernel chooses, the log tells
    haproxy_cmd: str
    server_cert: str  # certificate, then key
    client_ca: str
    request_read_timeout: float  # one request, head and body
    controllers: tuple[tuple[str, int], ...]
    heartbeat_interval: float  # fractions allowed
    heartbeat_key: str  # the four letters None when unset, as Octavia's sender has it
    heartbeat_format: str  # plain | envelope
    topology: str
    controller_identity: str | None  # DNS name that a client certificate must carry; None: the chain is enough
    network: str  # none: addresses are there already, plugging is a no-op | own: interfaces are ours | unsupported
    haproxy_user: str  # to drop to when the agent is root and the user exists; empty: stay
    nginx_cmd: str
    keepalived_cmd: str
    idle_timeout: float  # a kept connection without a request
    reload_timeout: float  # for a new haproxy worker to come up
    old_workers_memory: float  # MiB that old workers may hold together; 0: a share of the machine's memory
    hang_timeout: float  # of a haproxy that neither answers nor accepts; then it is restarted


def load_settings(path: str) -> Settings:
    """Read the file. Raises BadSettings; OSError when it cannot be read."""
    with open(path, encoding="utf-8") as file:
        return parse_settings(file.read(), os.path.abspath(path))


def parse_settings(text: str, path: str) -> Settings:
    """The value of a configuration text. Raises BadSettings."""
    parser = configparser.ConfigParser(interpolation=None, strict=False, default_section="")
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise BadSettings(f"not an INI file: {error}") from error
    ours = dict(parser.items("frontinus")) if parser.has_section("frontinus") else {}
    unknown = sorted(set(ours) - OURS)
    if unknown:
        raise BadSettings(f"[frontinus] has unknown keys: {', '.join(unknown)}")

    def get(section: str, key: str, default: str) -> str:
        return parser.get(section, key, fallback=default).strip()

    amphora_id = get("amphora_agent", "amphora_id", "")
    if not UUID.fullmatch(amphora_id):
        raise BadSettings("[amphora_agent] amphora_id must be a UUID")
    heartbeat_format = get("health_manager", "heartbeat_format", "plain")
    if heartbeat_format not in ("plain", "envelope"):
        raise BadSettings("[health_manager] heartbeat_format must be plain or envelope")
    network = ours.get("network", "unsupported")
    if network not in ("none", "own", "unsupported"):
        raise BadSettings("[frontinus] network must be none, own or unsupported")
    base_path = os.path.abspath(get("haproxy_amphora", "base_path", "/var/lib/octavia"))
    return Settings(
        path=path,
        amphora_id=amphora_id,
        base_path=base_path,
        base_cert_dir=os.path.abspath(get("haproxy_amphora", "base_cert_dir", f"{base_path}/certs")),
        bind_host=get("haproxy_amphora", "bind_host", "::"),
        bind_port=_port(get("haproxy_amphora", "bind_port", "9443"), "[haproxy_amphora] bind_port"),
        haproxy_cmd=get("haproxy_amphora", "haproxy_cmd", "/usr/sbin/haproxy"),
        server_cert=os.path.abspath(get("amphora_agent", "agent_server_cert", "/etc/octavia/certs/server.pem")),
        client_ca=os.path.abspath(get("amphora_agent", "agent_server_ca", "/etc/octavia/certs/client_ca.pem")),
        request_read_timeout=_seconds(get("amphora_agent", "agent_request_read_timeout", "180"), "read timeout"),
        controllers=parse_controllers(get("health_manager", "controller_ip_port_list", "")),
        heartbeat_interval=_seconds(get("health_manager", "heartbeat_interval", "10"), "heartbeat_interval"),
        heartbeat_key=get("health_manager", "heartbeat_key", "None"),
        heartbeat_format=heartbeat_format,
        topology=get("controller_worker", "loadbalancer_topology", "SINGLE"),
        controller_identity=ours.get("controller_identity") or None,
        network=network,
        haproxy_user=ours.get("haproxy_user", "haproxy"),
        nginx_cmd=ours.get("nginx_cmd", "/usr/sbin/nginx"),
        keepalived_cmd=ours.get("keepalived_cmd", "/usr/sbin/keepalived"),
        idle_timeout=_seconds(ours.get("idle_timeout", "120"), "[frontinus] idle_timeout"),
        reload_timeout=_seconds(ours.get("reload_timeout", "30"), "[frontinus] reload_timeout"),
        old_workers_memory=_mebibytes(ours.get("old_workers_memory", "0"), "[frontinus] old_workers_memory"),
        hang_timeout=_seconds(ours.get("hang_timeout", "5"), "[frontinus] hang_timeout"),
    )


def parse_controllers(text: str) -> tuple[tuple[str, int], ...]:
    """`ip:port, [ip]:port` as pairs; a malformed entry ends the list, as the contract has it."""
    found: list[tuple[str, int]] = []
    for entry in filter(None, (word.strip() for word in text.split(","))):
        host, separator, port = entry.rpartition(":")
        if not separator or not host or not port.isdecimal() or not 0 < int(port) < 65536:
            break
        found.append((host[1:-1] if host.startswith("[") and host.endswith("]") else host, int(port)))
    return tuple(found)


def with_heartbeat_key(text: str, key: str) -> str:
    """The text with another key in its section of heartbeats."""
    section = re.search(r"^\[health_manager\][^\n]*\n(?:(?!\[).*(?:\n|\Z))*", text, re.MULTILINE)
    line = f"heartbeat_key = {key}\n"
    if section is None:
        return f"{text.rstrip()}\n\n[health_manager]\n{line}"
    head, *rest = section.group(0).splitlines(keepends=True)
    kept = [x for x in rest if not re.match(r"heartbeat_key\s*[=:]", x)]
    return text[: section.start()] + "".join((head, line, *kept)) + text[section.end() :]


def keep_our_section(new: str, old: str) -> str:
    """The new text, with the old text's `[frontinus]` section when it brings none of its own.

    A plain Octavia controller pushes a file without it; that must not lift the check of the controller's identity.
    """
    if re.search(r"^\[frontinus\]", new, re.MULTILINE):
        return new
    ours = re.search(r"^\[frontinus\][^\n]*\n(?:(?!\[).*(?:\n|\Z))*", old, re.MULTILINE)
    return f"{new.rstrip()}\n\n{ours.group(0)}" if ours else new


def _seconds(text: str, key: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise BadSettings(f"{key} must be a positive number of seconds")
    return value


def _mebibytes(text: str, key: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise BadSettings(f"{key} must be a number of MiB")
    return value


def _port(text: str, key: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise BadSettings(f"{key} must be a port number")
    return int(text)

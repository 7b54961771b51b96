"""Read out of a haproxy configuration text the few facts that the agent needs. Pure: text in, values out.

It never renders or repairs a configuration: that is the controller's work. Next: load_balancer.py.
"""

import base64
import hashlib
import re
import socket
from collections.abc import Iterator
from typing import NamedTuple

SECTION = re.compile(
    r"^(global|defaults|frontend|backend|listen|peers|resolvers|userlist|mailers|cache|program|ring|http-errors"
    r"|log-forward|fcgi-app|crt-store|traces|log-profile|acme)\b[ \t]*(\S*)"
)
PORTS = re.compile(r"(\d+)(?:-(\d+))?")
MAX_MEMORY = "FRONTINUS_MAX_MEMORY"  # a variable of the global section, for us (memory.py)


class Bind(NamedTuple):
    """One address and port which a frontend listens on."""

    frontend: str
    address: str  # IP literal without brackets; a wildcard is 0.0.0.0 or ::
    port: int
    dual: bool = False  # an IPv6 wildcard which takes IPv4 too
    unchecked: bool = False  # bound in a way that a plain try would not tell: transparent, another namespace

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.address else socket.AF_INET


class Listener(NamedTuple):
    """A frontend as the plain protocol lists it."""

    listener_id: str
    mode: str
    tls: bool


def digest(text: str) -> str:
    """What a configuration is known by: SHA-256 of its UTF-8, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def stats_socket(text: str) -> str | None:
    """Path of the first stats socket in the text."""
    for words in _words_of(text, "global"):
        if words[:2] == ["stats", "socket"] and len(words) > 2:
            return words[2].removeprefix("unix@")
    return None


def global_word(text: str, *before: str) -> str:
    """The word after these in the last such line of the global section; empty when there is none."""
    found = ""
    for words in _words_of(text, "global"):
        if words[: len(before)] == list(before) and len(words) > len(before):
            found = words[len(before)]
    return found


def server_state_file(text: str) -> str | None:
    """Path of the global server state file, or None when the text asks for none. Relative ones start at base_path."""
    base = file = None
    for words in _words_of(text, "global"):
        if words[0] == "server-state-file" and len(words) > 1:
            file = words[1]
        elif words[0] == "server-state-base" and len(words) > 1:
            base = words[1]
    if file and base and not file.startswith("/"):
        file = f"{base.rstrip('/')}/{file}"
    return file or None


def names_user(text: str) -> bool:
    """True when the text itself says which user haproxy becomes."""
    return any(words[0] in ("user", "uid", "group", "gid") for words in _words_of(text, "global"))


def without_group_lines(text: str) -> str:
    """The text without lines whose first word is `group`: older controllers send them, the agent knows better."""
    return "\n".join(line for line in text.split("\n") if line.split()[:1] != ["group"])


def listeners(text: str) -> list[Listener]:
    """Every frontend, sorted by name; those for prometheus are nobody's listener."""
    found: dict[str, Listener] = {}
    for kind, name, lines in sections(text):
        if kind not in ("frontend", "listen") or "prometheus" in name:
            continue
        mode, tls = "tcp", False
        for words in lines:
            if words[0] == "mode" and len(words) > 1:
                mode = words[1]
            elif words[0] == "bind":
                tls = tls or "ssl" in words
        found[name] = Listener(name, mode, tls)
    return [found[name] for name in sorted(found)]


def binds(text: str, own_peer: str = "") -> list[Bind]:
    """Every IP address and port that the text listens on over TCP: frontends, log forwarders, our place among peers.

    What cannot be told from the text (names, variables, inherited descriptors, unix sockets, QUIC) is left out.
    """
    found: list[Bind] = []
    for kind, name, lines in sections(text):
        if kind in ("frontend", "listen", "log-forward", "peers"):
            for words in lines:
                if words[0] == "bind" and len(words) > 1:
                    for address in words[1].split(","):
                        found.extend(_parse_bind(name, address, words[2:]))
                elif kind == "peers" and words[0] == "peer" and len(words) > 2 and words[1] == own_peer:
                    found.extend(_parse_bind(name, words[2], words[3:]))
    return found


def servers(text: str) -> dict[str, tuple[str, int]]:
    """`backend/server` -> address and port, of every server that is checked and named by an IP address."""
    found: dict[str, tuple[str, int]] = {}
    inherited = False
    for kind, name, lines in sections(text):
        checked = kind != "defaults" and inherited
        for words in lines:
            if words[0] == "default-server":
                checked = _is_checked(words[1:], checked)
            elif words[0] == "server" and len(words) > 2 and kind in ("backend", "listen"):
                place = next(_parse_bind("", words[2], []), None)
                if place is not None and _is_checked(words[3:], checked):
                    found[f"{name}/{words[1]}"] = (place.address, place.port)
        if kind == "defaults":
            inherited = checked
    return found


def peer_name(amphora_id: str) -> str:
    """The name by which haproxy finds itself among its peers (contract: upload_haproxy_config)."""
    name = base64.b64encode(hashlib.sha1(amphora_id.encode(), usedforsecurity=False).digest(), b"_-").decode()
    return re.sub("^-", "x", name.rstrip("="))


def _is_checked(options: list[str], inherited: bool) -> bool:
    return "check" in options or (inherited and "no-check" not in options)


def _parse_bind(frontend: str, text: str, options: list[str]) -> Iterator[Bind]:
    address = re.sub(r"^(ipv4|ipv6|tcp|tcp4|tcp6|stream\+ipv4|stream\+ipv6)@", "", text)
    six = text.startswith(("ipv6@", "tcp6@", "stream+ipv6@"))
    host, separator, ports = address.rpartition(":")
    match = PORTS.fullmatch(ports)
    if not separator or not match:
        return
    host = host.strip("[]")
    if host in ("", "*"):
        host = "::" if six else "0.0.0.0"
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        host = socket.inet_ntop(family, socket.inet_pton(family, host))
    except (OSError, ValueError):
        return
    unchecked = bool({"transparent", "namespace", "interface"} & set(options))
    for port in range(int(match[1]), min(int(match[2] or match[1]), 65535) + 1):
        if 0 < port < 65536:
            yield Bind(frontend, host, port, "v4v6" in options, unchecked)


def _words_of(text: str, wanted: str) -> Iterator[list[str]]:
    for kind, _name, lines in sections(text):
        if kind == wanted:
            yield from lines


def sections(text: str) -> Iterator[tuple[str, str, list[list[str]]]]:
    """Kind, name and lines of each section; a line is its words, less quotes' meaning and comments."""
    kind, name = "", ""
    lines: list[list[str]] = []
    # Not splitlines: what else Unicode has for ends of lines a tenant may have written within one of haproxy's.
    for line in text.split("\n"):
        match = SECTION.match(line.strip())
        if match:
            if kind:
                yield kind, name, lines
            kind, name, lines = match[1], match[2], []
        else:
            words = line.split("#", 1)[0].split()
            if words:
                lines.append(words)
    if kind:
        yield kind, name, lines

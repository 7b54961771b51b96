"""One member as HAProxy's `server` line, and back. The same words make the line and the runtime command `add server`.

Pure. Next: render.py, which makes the values; diff.py, which compares them."""

from __future__ import annotations

import ipaddress

import msgspec

from frontinus.drivers.amphora.haproxy.tls import KEYWORDS as TLS_KEYWORDS
from frontinus.drivers.amphora.haproxy.tls import Tls
from frontinus.model.errors import Rejected

_FLAGS = {"check", "backup", "disabled", "send-proxy", "send-proxy-v2", "check-send-proxy", "ssl", "check-ssl"}
_VALUES = {
    *("id", "weight", "inter", "fall", "rise", "addr", "port", "verify"),
    *("check-sni", "check-alpn"),
    *TLS_KEYWORDS,
}


class Check(msgspec.Struct, frozen=True):
    """How a server is checked. `inter` has HAProxy's unit in it, as 5s; address and port None: as the traffic."""

    inter: str
    fall: int
    rise: int
    address: str | None = None
    port: int | None = None
    tls: bool = False
    sni: str | None = None  # the name asked for in TLS
    alpn: str | None = None  # the protocols offered in TLS


class Server(msgspec.Struct, frozen=True):
    """A member in a backend. `number` is HAProxy's server id: consistent hashing places servers on its ring by it, so
    it must be the same on every amphora and after every reload, whatever order members came in. `address` and the
    check's are canonical IP literals without brackets."""

    name: str
    number: int
    address: str
    port: int
    weight: int
    backup: bool = False
    disabled: bool = False
    proxy_protocol: int = 0  # 0: none, 1 or 2: the version of the PROXY header sent to the member
    check: Check | None = None
    tls: Tls | None = None

    def words(self) -> tuple[str, ...]:
        """The words of the `server` line, the keyword first."""
        return ("server", self.name, *self.arguments())

    def arguments(self) -> tuple[str, ...]:
        """What follows the name, in the configuration and in `add server`."""
        words = [f"{bracket(self.address)}:{self.port}", "id", str(self.number), "weight", str(self.weight)]
        if self.backup:
            words.append("backup")
        if self.proxy_protocol:
            words.append("send-proxy" if self.proxy_protocol == 1 else "send-proxy-v2")
        if self.tls is not None:
            words += self.tls.words()
        if self.check is not None:
            check = self.check
            words += ["check", "inter", check.inter, "fall", str(check.fall), "rise", str(check.rise)]
            if check.address is not None:
                words += ["addr", bracket(check.address)]
            if check.port is not None:
                words += ["port", str(check.port)]
            if self.proxy_protocol and check.address is None and check.port is None:
                # The member expects it on this port. HAProxy assumes as much for a configured server, but not for one
                # that is added at run time. What answers elsewhere is another service.
                words.append("check-send-proxy")
            if check.tls:
                # Said even where HAProxy would assume it: it does not for a server that is added at run time.
                words += ["check-ssl", *(("verify", "none") if self.tls is None else ())]
                if check.sni is not None:
                    words += ["check-sni", check.sni]
                if check.alpn is not None:
                    words += ["check-alpn", check.alpn]
        if self.disabled:
            words.append("disabled")
        return tuple(words)


def read_server(words: tuple[str, ...]) -> Server | None:
    """The value of a `server` line that `Server.words` made; None when it has anything that we don't write."""
    if len(words) < 3 or words[0] != "server":
        return None
    flags: set[str] = set()
    values: dict[str, str] = {}
    rest = iter(words[3:])
    for word in rest:
        if word in _FLAGS:
            flags.add(word)
        elif word in _VALUES and (value := next(rest, None)) is not None:
            values[word] = value
        else:
            return None
    host, _, port = words[2].rpartition(":")
    try:
        check = None
        if "check" in flags:
            check = Check(
                inter=values["inter"],
                fall=int(values["fall"]),
                rise=int(values["rise"]),
                address=_unbracket(values["addr"]) if "addr" in values else None,
                port=int(values["port"]) if "port" in values else None,
                tls="check-ssl" in flags,
                sni=values.get("check-sni"),
                alpn=values.get("check-alpn"),
            )
        tls = None
        if "ssl" in flags:
            told = {field: values[keyword] for keyword, field in TLS_KEYWORDS.items() if keyword in values}
            tls = Tls(verify=values["verify"], **told)
        server = Server(
            name=words[1],
            number=int(values["id"]),
            address=_unbracket(host),
            port=int(port),
            weight=int(values["weight"]),
            backup="backup" in flags,
            disabled="disabled" in flags,
            proxy_protocol=1 if "send-proxy" in flags else 2 if "send-proxy-v2" in flags else 0,
            check=check,
            tls=tls,
        )
    except (KeyError, ValueError):
        return None
    return server if server.words() == words else None


def bracket(address: str) -> str:
    """The IP literal as HAProxy wants it before a port."""
    return f"[{address}]" if ":" in address else address


def _unbracket(text: str) -> str:
    address = text.removeprefix("[").removesuffix("]")
    return str(ipaddress.ip_address(address))


def address_of(text: str, field: str) -> str:
    """The canonical literal, without brackets. Raises Rejected naming the field."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise Rejected(field, f"{text!r} is not an IP address") from error
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        raise Rejected(field, f"{text!r} has a scope, which an amphora cannot know")
    return str(address)

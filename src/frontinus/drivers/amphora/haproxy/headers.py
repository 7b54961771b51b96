"""Headers that a listener adds to requests, as lines of a backend. Pure. Next: render.py puts them in their place.

They stand in the backend because HAProxy is through with the listener's L7 rules there: those see what the client sent,
not what was added. Values are those of Octavia's HAProxy template: X-Forwarded-For grows by the client's address; every
other replaces what a client sent under its name. Source: HAProxy configuration manual 4.2 (option forwardfor,
http-request set-header), 7.3.4 (ssl_c_*)."""

from __future__ import annotations

from frontinus.model.enums import ListenerProtocol
from frontinus.model.tree import Listener

_VALUES: dict[str, str] = {
    "X-Forwarded-Port": "%[dst_port]",
    "X-Forwarded-IP": "%[src]",
    "X-Client-IP": "%[src]",
    "X-Real-IP": "%[src]",
}
_TLS_VALUES: dict[str, str] = {
    "X-SSL-Client-Verify": "%[ssl_c_verify]",
    "X-SSL-Client-Has-Cert": "%[ssl_c_used]",
    "X-SSL-Client-DN": "%{+Q}[ssl_c_s_dn]",
    "X-SSL-Client-CN": "%{+Q}[ssl_c_s_dn(cn)]",
    "X-SSL-Issuer": "%{+Q}[ssl_c_i_dn]",
    "X-SSL-Client-SHA1": "%{+Q}[ssl_c_sha1,hex]",
    "X-SSL-Client-Not-Before": "%{+Q}[ssl_c_notbefore]",
    "X-SSL-Client-Not-After": "%{+Q}[ssl_c_notafter]",
}
_PROTO: dict[ListenerProtocol, str] = {ListenerProtocol.HTTP: "http", ListenerProtocol.TERMINATED_HTTPS: "https"}


def header_lines(listener: Listener) -> list[tuple[str, ...]]:
    """The lines for the headers that are asked for with the text `true`, whatever its case; others have no effect
    (contract/resources.yaml, insert_headers)."""
    if listener.protocol not in _PROTO:
        return []
    asked = {name for name, value in listener.insert_headers.items() if value.lower() == "true"}
    values = {**_VALUES, "X-Forwarded-Proto": _PROTO[listener.protocol]}
    if listener.protocol is ListenerProtocol.TERMINATED_HTTPS:
        values |= _TLS_VALUES
    lines: list[tuple[str, ...]] = [("option", "forwardfor")] if "X-Forwarded-For" in asked else []
    lines += [("http-request", "set-header", name, value) for name, value in sorted(values.items()) if name in asked]
    return lines

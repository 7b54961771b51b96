"""Session persistence as lines of a backend, and the peers that carry what was learnt over a reload. Pure.

HAProxy's own `cookie` needs a word on every `server` line that `add server` refuses, so that no member could come
without a reload. Here the cookie names the member itself and `use-server` looks it up: nothing to keep, nothing to lose.
Addresses of clients and cookies of applications are learnt in stick tables, which know a server by its id and name.
docs/design/0013 weighs the ways. Sources: HAProxy configuration manual 4.2 (stick, stick-table, use-server), 3.5 (peers);
Octavia's HAProxy template for what the client sees. Next: render.py puts the lines in their place."""

from __future__ import annotations

import base64
import hashlib

from frontinus.drivers.amphora.agent.vrrp import own_address, peers_of
from frontinus.drivers.amphora.haproxy.server import bracket
from frontinus.drivers.amphora.haproxy.settings import HaproxySettings
from frontinus.drivers.amphora.haproxy.text import Section, checked
from frontinus.model.enums import AmphoraRole, SessionPersistenceType
from frontinus.model.tree import LoadBalancerTree, Pool

Line = tuple[str, ...]

COOKIE = "SRV"
"""The cookie of HTTP_COOKIE; its value is the member's id. Both are what Octavia's amphorae send."""

PEERS_PORT = 1025
"""Where an amphora of a pair listens for the other (contract/amphora-agent.yaml, peers)."""

LOCAL_PEER = "local"
"""The name of the only peer where nobody said for which amphora a text is."""

_HAS_COOKIE: Line = ("if", "{", "var(txn.sticky)", "-m", "found", "}")
_IS_NEW: Line = ("unless", "{", "srv_name,strcmp(txn.sticky)", "eq", "0", "}")

_BY_COOKIE: list[Line] = [
    ("http-request", "set-var(txn.sticky)", f"req.cook({COOKIE})"),
    # The member sees the cookies that are its own: ours is cut out, first or behind others, and an empty header goes.
    ("http-request", "replace-header", "Cookie", rf"^{COOKIE}=[^;]*(?:; *)?(.*)$", r"\1", *_HAS_COOKIE),
    ("http-request", "replace-header", "Cookie", rf"^(.*); *{COOKIE}=[^;]*(.*)$", r"\1\2", *_HAS_COOKIE),
    ("http-request", "del-header", "Cookie", "if", "{", "req.fhdr(cookie)", "-m", "len", "0", "}"),
    # A member that is down, or no member any more, is passed over: the algorithm chooses, and the client is told.
    ("use-server", "%[var(txn.sticky)]", *_HAS_COOKIE),
    ("http-response", "add-header", "Set-Cookie", f"{COOKIE}=%s; path=/", *_IS_NEW),
    # A cache that keeps the answer would hand one client's member to all.
    ("http-response", "add-header", "Cache-Control", "private", *_IS_NEW),
]


def persistence_lines(tree: LoadBalancerTree, pool: Pool, settings: HaproxySettings) -> list[Line]:
    """How a backend finds the member that a client had before."""
    persistence = pool.session_persistence
    if persistence is None:
        return []
    size = ("size", str(settings.stick_table_size), "peers", peers_name(tree.id))
    match persistence.type:
        case SessionPersistenceType.SOURCE_IP:
            # An IPv4 address has its place among IPv6 addresses.
            return [("stick-table", "type", "ipv6", *size), ("stick", "on", "src")]
        case SessionPersistenceType.APP_COOKIE:
            # A digest: a session's cookie may be long and differ late, and the table holds keys of one length.
            name = checked(persistence.cookie_name or "", "session_persistence")
            return [
                ("stick-table", "type", "binary", "len", "20", *size),
                ("stick", "match", f'req.cook("{name}"),sha1'),
                ("stick", "store-response", f'res.cook("{name}"),sha1'),
            ]
        case SessionPersistenceType.HTTP_COOKIE:
            return _BY_COOKIE


def peers_section(tree: LoadBalancerTree, amphora_id: str) -> Section:
    """Where a worker teaches its successor what the stick tables hold.

    An abstract socket, by a name that is the amphora's own: amphorae of the `process` place share the ports of their
    host, and where the agent is root, the worker is not, and reaches no socket in the agent's directory. In a pair it is the
    amphora's own address, where the peer learns too what was learnt; the network lets nobody else in there. HAProxy believes
    only who knows both names, which come from ids that no tenant is shown."""
    local_peer = peer_name(amphora_id) if amphora_id else LOCAL_PEER
    amphora = next((x for x in tree.amphorae if x.id == amphora_id), None)
    address = None if amphora is None else own_address(tree, amphora)
    if amphora is not None and address is not None and amphora.role is not AmphoraRole.STANDALONE:
        others = ((x.id, own_address(tree, x)) for x in peers_of(tree, amphora))
        return Section(
            "peers",
            peers_name(tree.id),
            (
                ("bind", f"{bracket(address)}:{PEERS_PORT}"),
                ("server", local_peer),
                *(("server", peer_name(x), f"{bracket(at)}:{PEERS_PORT}") for x, at in others if at is not None),
            ),
        )
    return Section("peers", peers_name(tree.id), (("bind", f"abns@{local_peer}.peers"), ("server", local_peer)))


def learns(pool: Pool) -> bool:
    """Whether a pool keeps a stick table."""
    return pool.session_persistence is not None and pool.session_persistence.type in (
        SessionPersistenceType.SOURCE_IP,
        SessionPersistenceType.APP_COOKIE,
    )


def peers_name(load_balancer_id: str) -> str:
    return f"{load_balancer_id.replace('-', '')}_peers"


def peer_name(amphora_id: str) -> str:
    """The name by which an agent calls its HAProxy (contract/amphora-agent.yaml, upload_haproxy_config)."""
    digest = hashlib.sha1(amphora_id.encode(), usedforsecurity=False).digest()
    name = base64.b64encode(digest, b"_-").decode().rstrip("=")
    return f"x{name[1:]}" if name.startswith("-") else name

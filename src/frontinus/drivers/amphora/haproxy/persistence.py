"""Session persistence as lines of a backend, and the peers that learn what was learnt. Pure.

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
from frontinus.model.enums import AmphoraRole, SessionPersistenceType, Topology
from frontinus.model.tree import LoadBalancerTree, Pool

Line = tuple[str, ...]

COOKIE = "SRV"
"""The cookie of HTTP_COOKIE; its value is the member's id. Both are what Octavia's amphorae send."""

PEERS_PORT = 1025
"""Where an amphora of a pair listens for the other (contract/amphora-agent.yaml, peers)."""

KEEPER_PEER = "keeper"
"""What the agent's table keeper is called, which gives a HAProxy that was killed back what it had learnt."""

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


_KEYS: dict[SessionPersistenceType, Line | None] = {
    # An IPv4 address has its place among IPv6 addresses.
    SessionPersistenceType.SOURCE_IP: ("ipv6",),
    # A digest: a session's cookie may be long and differ late, and the table holds keys of one length. In hexadecimal,
    # because the agent can tell a new worker only keys that are text.
    SessionPersistenceType.APP_COOKIE: ("string", "len", "40"),
    SessionPersistenceType.HTTP_COOKIE: None,
}
"""The type of the table that each learns into."""


def keeps(tree: LoadBalancerTree, settings: HaproxySettings) -> bool:
    """Whether the agent keeps its stick tables, if it has any."""
    return settings.table_keeper and not settings.base_path and tree.load_balancer.topology is Topology.SINGLE


def persistence_lines(tree: LoadBalancerTree, pool: Pool, backend: str) -> list[Line]:
    """How a backend of this name finds the member that a client had before."""
    persistence = pool.session_persistence
    if persistence is None:
        return []
    table = ("table", f"{peers_name(tree.id)}/{backend}")
    match persistence.type:
        case SessionPersistenceType.SOURCE_IP:
            return [("stick", "on", "src", *table)]
        case SessionPersistenceType.APP_COOKIE:
            name = checked(persistence.cookie_name or "", "session_persistence")
            return [
                ("stick", "match", f'req.cook("{name}"),sha1,hex', *table),
                ("stick", "store-response", f'res.cook("{name}"),sha1,hex', *table),
            ]
        case SessionPersistenceType.HTTP_COOKIE:
            return _BY_COOKIE


def learns(pool: Pool) -> bool:
    """Whether it has a stick table."""
    return pool.session_persistence is not None and _KEYS[pool.session_persistence.type] is not None


def table_line(pool: Pool, backend: str, settings: HaproxySettings) -> Line | None:
    """What the backend of this name learns into, as a line of the peers section; None where it learns nothing."""
    keys = None if pool.session_persistence is None else _KEYS[pool.session_persistence.type]
    return None if keys is None else ("table", backend, "type", *keys, "size", str(settings.stick_table_size))


def peers_section(tree: LoadBalancerTree, amphora_id: str, settings: HaproxySettings, tables: list[Line]) -> Section:
    """The stick tables, and who learns what they hold.

    They are here and not in their backends, because a worker that goes empties those of its backends, and its successor
    has still to be told: by our agent (agent-extension.md), whose table keeper also has them when HAProxy is killed, on a
    socket that nobody else may speak to. Behind an agent of Octavia, which does neither, the old worker teaches the new one,
    on an abstract socket by a name that is the amphora's own. In a pair it is the amphora's own address, where the peer
    learns too; the network lets nobody else in there. HAProxy believes only who knows both names, which come from ids that
    no tenant is shown."""
    local_peer = peer_name(amphora_id) if amphora_id else LOCAL_PEER
    lines: list[Line] = []
    others: list[Line] = []
    amphora = next((x for x in tree.amphorae if x.id == amphora_id), None)
    address = None if amphora is None else own_address(tree, amphora)
    if amphora is not None and address is not None and amphora.role is not AmphoraRole.STANDALONE:
        lines.append(("bind", f"{bracket(address)}:{PEERS_PORT}"))
        places = ((x.id, own_address(tree, x)) for x in peers_of(tree, amphora))
        others += [("server", peer_name(x), f"{bracket(at)}:{PEERS_PORT}") for x, at in places if at is not None]
    elif settings.base_path:
        lines.append(("bind", f"abns@{local_peer}.peers"))
    elif keeps(tree, settings):
        others.append(("server", KEEPER_PEER, f"unix@{tree.id}.k"))
    return Section("peers", peers_name(tree.id), (*lines, ("server", local_peer), *others, *tables))


def peers_name(load_balancer_id: str) -> str:
    return f"{load_balancer_id.replace('-', '')}_peers"


def peer_name(amphora_id: str) -> str:
    """The name by which an agent calls its HAProxy (contract/amphora-agent.yaml, upload_haproxy_config)."""
    digest = hashlib.sha1(amphora_id.encode(), usedforsecurity=False).digest()
    name = base64.b64encode(digest, b"_-").decode().rstrip("=")
    return f"x{name[1:]}" if name.startswith("-") else name

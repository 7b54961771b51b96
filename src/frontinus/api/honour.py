"""Whether a provider's driver can carry a tree, asked for a caller: a refusal says which object of the tree it means.

Judged by model/capabilities.py. In a whole tree an attribute's name alone would leave the caller to guess, and in an edit
it may be another object than the one that is edited. Pure."""

from __future__ import annotations

from frontinus.model import capabilities
from frontinus.model.capabilities import Capabilities
from frontinus.model.enums import Kind
from frontinus.model.errors import Unsupported
from frontinus.model.tree import (
    HealthMonitor,
    L7Policy,
    L7Rule,
    Listener,
    LoadBalancerTree,
    Member,
    Pool,
    TreeObject,
)


def require_honoured(tree: LoadBalancerTree, offered: Capabilities) -> None:
    """Raises Unsupported, whose field is kind and attribute, as `listener.protocol`."""
    try:
        capabilities.require(tree, offered)
    except Unsupported as error:
        found = None if error.subject is None else next((x for x in tree.children() if x.id == error.subject.id), None)
        kind = Kind.LOAD_BALANCER if found is None else found.kind
        which = "" if found is None else f" ({_called(tree, found)})"
        told = Unsupported(f"{kind}.{error.field}", f"{error.reason}{which}")
        told.subject = error.subject
        raise told from error


def _called(tree: LoadBalancerTree, found: TreeObject) -> str:
    """An object as its owner knows it, also before it has an id that anybody was told."""
    match found:
        case Listener():
            return f"the listener {_named(found.name)}on port {found.protocol_port}"
        case Pool():
            return f"the pool {_named(found.name)}of protocol {found.protocol}"
        case Member():
            return f"the member {_named(found.name)}at {found.address} port {found.protocol_port}"
        case HealthMonitor():
            pool = tree.pool(found.pool_id)
            return f"the health monitor {_named(found.name)}of " + ("a pool" if pool is None else _called(tree, pool))
        case L7Policy():
            return f"the L7 policy {_named(found.name)}at position {found.position}"
        case L7Rule():
            return f"the L7 rule about {found.type}, {_quoted(found.value)}"
        case _:
            return "the load balancer"


def _named(name: str) -> str:
    return f"{_quoted(name)} " if name else ""


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:80]}...")

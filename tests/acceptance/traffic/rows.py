"""What the traffic suite answers for: each attribute that a tenant can write, by the contract, and each of its values
that may act differently.

A row is a name as `listener.protocol[HTTP]`: resource and attribute, the value in brackets where the contract lists the
values; or a pair as `listener.protocol[TCP] over pool.protocol[PROXY]`. Everything comes from tests/contract/resources.yaml; what the contract gains is a row that nobody answers for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.contract import facts

RESOURCES = ("loadbalancer", "listener", "pool", "member", "healthmonitor", "l7policy", "l7rule")

_VALUES_IN_MATRICES = {
    ("listener", "tls_versions"): ("tls", "tls_versions_values"),
    ("pool", "tls_versions"): ("tls", "tls_versions_values"),
    ("listener", "alpn_protocols"): ("tls", "alpn_values"),
    ("pool", "alpn_protocols"): ("tls", "alpn_values"),
}
"""Arrays whose elements are listed apart from their attributes."""


def rows() -> list[str]:
    """Every row, in the contract's order."""
    found = []
    for resource in RESOURCES:
        for name, fact in facts.resources()["resources"][resource]["fields"].items():
            if any((fact.get(when) or {}).get("accepted") for when in ("create", "update")):
                found += [f"{resource}.{name}{suffix}" for suffix in _suffixes(resource, name, fact)]
    return [*found, *(over(*pair) for pair in OVER), *(watched(*x) for x in WATCHED)]


def pairs(matrix: str) -> list[tuple[str, str]]:
    """The pairs that a matrix allows. SCTP is apart: a row of its own says what is with it."""
    allowed = facts.resources()["matrices"][matrix]["allowed"]
    return [(one, other) for one, others in allowed.items() for other in others if "SCTP" not in (one, other)]


def over(listener: str, pool: str) -> str:
    return f"listener.protocol[{listener}] over pool.protocol[{pool}]"


def watched(pool: str, monitor: str) -> str:
    return f"pool.protocol[{pool}] watched by healthmonitor.type[{monitor}]"


OVER = pairs("listener_to_pool_protocol")
WATCHED = pairs("pool_to_healthmonitor_type")


def _suffixes(resource: str, name: str, fact: dict[str, Any]) -> Iterator[str]:
    matrices = facts.resources()["matrices"]
    if (resource, name) == ("listener", "insert_headers"):
        for protocol in matrices["insert_headers"]["listener_protocols"]:
            yield from (f"[{protocol} {header}]" for header in matrices["insert_headers"][protocol])
    elif (resource, name) == ("pool", "session_persistence"):
        fields = dict(matrices["session_persistence"]["fields"])
        yield from (f".type[{kind}]" for kind in fields.pop("type")["enum"])
        yield from (f".{field}" for field in fields)
    elif (resource, name) == ("l7rule", "type"):
        for kind, compares in matrices["l7rule_type_compare"]["grid"].items():
            yield from (f"[{kind} {compare}]" for compare, is_allowed in compares.items() if is_allowed)
    elif (resource, name) == ("l7rule", "compare_type"):
        return  # with the type
    elif (resource, name) in _VALUES_IN_MATRICES:
        matrix, values = _VALUES_IN_MATRICES[resource, name]
        yield from (f"[{value}]" for value in matrices[matrix][values])
    elif fact["type"] == "boolean":
        yield from ("[true]", "[false]")
    elif "enum" in fact.get("constraints", {}):
        yield from (f"[{value}]" for value in fact["constraints"]["enum"])
    else:
        yield ""

"""Every fact in which Frontinus differs from the reference on purpose, by area and name, with what it answers instead.

Reasons come from the contract itself: outcomes that it marks unhandled_500, reference_bug or recommended; and from
docs/reference/api.md, which tells users of the others."""

from __future__ import annotations

from typing import NamedTuple


class Difference(NamedTuple):
    answer: object
    why: str


UNHANDLED = "unhandled in the reference; the contract recommends 400"


def _refused(*names: str) -> dict[str, Difference]:
    return {name: Difference(400, UNHANDLED) for name in names}


DOCUMENTED = "the published example shows it, the service does not (status_tree, nested_create.response, absent_key)"


def _only_documented(*names: str) -> dict[str, Difference]:
    return {name: Difference(False, DOCUMENTED) for name in names}


UNSUPPORTED = (
    "what no driver can honour is refused when it is asked for (DESIGN section 6, rule 9); the reference ignores it"
)

_COOKIES_WITHOUT_HTTP = {
    f"{protocol} pool, {type_} []{way}": Difference(501, UNSUPPORTED)
    for protocol in ("TCP", "HTTPS")
    for type_ in ("APP_COOKIE", "HTTP_COOKIE")
    for way in ("", " in a whole tree", " on update")
}

DIFFERENCES: dict[str, dict[str, Difference]] = {
    "attributes of loadbalancer": _refused("additional_vips null at create"),
    "attributes of listener": _refused("l7policies null at create"),
    "attributes of pool": _refused(
        "protocol null at create",
        "lb_algorithm null at create",
        "lb_algorithm null at update",
        "tls_enabled null at update",
    ),
    "attributes of member": _refused("address null at create", "protocol_port null at create", "backup null at create"),
    "attributes of healthmonitor": _refused("max_retries_down null at create"),
    "attributes of flavor": _refused("enabled null at create", "enabled null at update"),
    "attributes of availability_zone": _refused("enabled null at create", "enabled null at update"),
    "session persistence": _COOKIES_WITHOUT_HTTP,
    "tls values": {f"{protocol} pool with TLS": Difference(501, UNSUPPORTED) for protocol in ("UDP", "SCTP")},
    "examples of loadbalancer-full-create": _only_documented(
        "answer.listeners[].default_pool is there", "answer.listeners[].default_tls_container_id is there"
    ),
    "examples of pool-create": _only_documented("answer.healthmonitor_id is there"),
    "examples of reads": _only_documented(
        "loadbalancer-status.statuses.loadbalancer.listeners[].pools[].healthmonitor is there",
        "loadbalancer-status.statuses.loadbalancer.listeners[].l7policies is there",
        "loadbalancer-status.statuses.loadbalancer.pools is there",
    ),
}

"""Values for an attribute, made from what the contract says of it: right ones and what they are shown as, wrong ones.

Pure: attribute facts in, cases out. Where a value must name something that exists, `Ids` hands in what there is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tests.integration.api.contract.family import CERTIFICATE

UUID = "0A1B2C3D-0000-4000-8000-00000000BEEF"
SOMETHING = object()
"""Shown as anything but null."""


class Case(NamedTuple):
    """A value to send, whether it is taken, and what is shown then."""

    label: str
    sent: Any
    shown: Any = SOMETHING
    taken: bool = True


Ids = Mapping[str, str]
"""Of objects that there are, by what they are."""

_BOOLEANS: tuple[tuple[Any, bool], ...] = (
    (True, True),
    (False, False),
    (1, True),
    (0, False),
    *((x, True) for x in ("true", "True", "on", "yes", "t", "1")),
    *((x, False) for x in ("false", "FALSE", "off", "no", "f", "0")),
)
_WRONG_TYPES: dict[str, tuple[Any, ...]] = {
    "integer": ("x", "", [], {}, [1]),
    "number": ("x", [], {}),
    "boolean": ("maybe", "", [], {}),
    "string": (1, 1.5, True, [], {}, ["x"]),
    "array": ("x", 1, True, {}),
    "object": ("x", 1, True, [1]),
}
_RIGHT_FORMATS: dict[str, tuple[str, ...]] = {
    "ip-address": ("192.0.2.9", "2001:db8::9", "2001:DB8:0::A"),
    "url-path": ("/", "/a?b=c#d", "/%20", "/a//b"),
    "url-http-https": ("http://www.example.com", "https://example.com:8443/a?b=c#d", "http://[2001:db8::1]/"),
}
_WRONG_FORMATS: dict[str, tuple[str, ...]] = {
    "ip-address": ("", "here", "300.1.1.1", "192.0.2.0/24", "1.2.3", "fe80::1%eth0", " 192.0.2.1"),
    "uuid": ("x", "0a1b2c3d-0000-4000-8000-00000000bee", "g" * 32),
    "url-path": ("", "a", "//host/a", "http://host/a", "/a b", "/a\tb", "/a\nb"),
    "url-http-https": ("", "/a", "ftp://host/", "http://", "http://ho st/", "http://host/\t", "www.example.com"),
}
_PROBES = (
    *("200", "200,201", "200 , 404", "200-204", "200-204,300", "20", "2000", "a", "200,", ""),
    *("example.com", "a.example.com.", "_srv.example.com", "-a.b", "a-.b", "a_b.c", "a..b", "x" * 63, "x" * 64),
    *("with\rreturn", "with\nnewline", "a b", "UPPER"),
)
ITEMS: dict[str, tuple[Any, Any]] = {
    "tls_versions": (["TLSv1.2"], ["TLSv1.2"]),
    "alpn_protocols": (["http/1.1"], ["http/1.1"]),
    "allowed_cidrs": (["192.0.2.77/24", "198.51.100.4"], ["192.0.2.0/24", "198.51.100.4/32"]),
    "sni_container_refs": ([CERTIFICATE], [CERTIFICATE]),
    "vip_sg_ids": ([UUID], [UUID.lower()]),
    "tags": (["b", "a", ""], ["", "a", "b"]),
    "listeners": ([], []),
    "pools": ([], []),
    "members": ([], []),
    "l7policies": ([], []),
    "rules": ([], []),
    "additional_vips": ([], []),
}
_OBJECTS: dict[str, tuple[Any, Any]] = {
    "insert_headers": ({"X-Forwarded-For": "true"}, {"X-Forwarded-For": "true"}),
    "session_persistence": (
        {"type": "SOURCE_IP"},
        {"type": "SOURCE_IP", "cookie_name": None, "persistence_timeout": None, "persistence_granularity": None},
    ),
}
_TEXTS: dict[str, str] = {
    "tls_ciphers": "ECDHE-RSA-AES256-GCM-SHA384",
    "flavor_data": "{}",
    "availability_zone_data": "{}",
}
_JSON_TEXTS = frozenset({"flavor_data", "availability_zone_data"})
_IDS = {
    "default_pool_id": "pool",
    "redirect_pool_id": "pool",
    "loadbalancer_id": "loadbalancer",
    "listener_id": "listener",
    "pool_id": "spare_pool",
    "vip_subnet_id": "subnet",
    "vip_network_id": "network",
    "subnet_id": "subnet",
    "vip_port_id": "port",
    "flavor_profile_id": "flavorprofile",
    "availability_zone_profile_id": "availability_zone_profile",
    "flavor_id": "flavor",
}


def right(wire: str, fact: Any, ids: Ids) -> Iterator[Case]:
    """What must be taken: each word, both bounds, each spelling and coercion that the contract has."""
    limits = fact.get("constraints", {})
    match fact["type"]:
        case "boolean":
            # A port of another kind is for load balancers whose flavor allows it.
            untaken = wire == "request_sriov"
            yield from (Case(repr(sent), sent, shown, not (untaken and shown)) for sent, shown in _BOOLEANS)
        case "integer":
            yield from _right_integers(limits)
        case "number":
            for value in limits["enum"]:
                yield Case(f"{value}", value, float(value))
                yield Case(f"{str(value)!r}", str(value), float(value))
        case "array":
            sent, shown = ITEMS[wire]
            yield Case("list", sent, shown)
        case "object":
            if wire in _OBJECTS:
                yield Case("object", *_OBJECTS[wire])
        case _:
            yield from _right_strings(wire, limits, ids)


def _right_integers(limits: Any) -> Iterator[Case]:
    if "enum" in limits:
        yield from (Case(f"{x}", x, x) for x in limits["enum"])
        return
    lowest = limits.get("minimum", 0)
    highest = limits.get("maximum")
    yield Case(f"minimum {lowest}", lowest, lowest)
    if highest is not None:
        yield Case(f"maximum {highest}", highest, highest)
    middle = lowest + 2
    yield Case("text", str(middle), middle)
    yield Case("fraction", middle + 0.5, middle)
    if lowest <= 1:
        yield Case("true", True, 1)


def _right_strings(wire: str, limits: Any, ids: Ids) -> Iterator[Case]:
    if "enum" in limits:
        yield from (Case(word, word, word) for word in limits["enum"])
    elif limits.get("format") == "uuid":
        value = ids.get(_IDS.get(wire, ""), UUID.lower())
        yield Case("uuid", value, value)
        yield Case("upper case", value.upper(), value)
        yield Case("without dashes", value.replace("-", ""), value)
    elif limits.get("format") in _RIGHT_FORMATS:
        texts = ("198.51.100.9",) if wire == "vip_address" else _RIGHT_FORMATS[limits["format"]]
        yield from (Case(repr(x), x, x) for x in texts)
    elif "pattern" in limits:
        yield from (Case(repr(x), x, x) for x in _probes(limits) if _matches(wire, limits, x))
    elif wire in _TEXTS:
        yield Case("text", _TEXTS[wire], _TEXTS[wire])
    elif wire == "availability_zone":
        yield Case("a zone", ids["availability_zone"], ids["availability_zone"])
    elif wire in ("provider", "provider_name"):
        yield Case("amphora", "amphora", "amphora")
    elif "max_length" in limits:
        longest = "x" * limits["max_length"]
        yield Case("short", "x", "x")
        yield Case(f"{limits['max_length']} characters", longest, longest)
        if wire not in _ALSO:
            wide = "\N{SNOWMAN}" * limits["max_length"]
            yield Case(f"{limits['max_length']} wide characters", wide, wide)


def wrong(wire: str, fact: Any) -> Iterator[Case]:
    """What must be refused: other types, beyond either bound, other words and spellings, other items."""
    limits = fact.get("constraints", {})
    for value in _WRONG_TYPES[fact["type"]]:
        yield Case(f"type {value!r}", value, taken=False)
    if "minimum" in limits:
        yield Case(f"minimum {limits['minimum']} - 1", limits["minimum"] - 1, taken=False)
    if "maximum" in limits:
        yield Case(f"maximum {limits['maximum']} + 1", limits["maximum"] + 1, taken=False)
    if fact["type"] == "string" and "max_length" in limits and wire not in _JSON_TEXTS:
        yield Case(f"{limits['max_length']} + 1 characters", "x" * (limits["max_length"] + 1), taken=False)
    if wire in _JSON_TEXTS:
        longer = '{"x": "' + "x" * limits["max_length"] + '"}'
        yield from (Case(f"text {x[:10]!r}", x, taken=False) for x in (longer, "", "x", "[]", "1"))
    if "enum" in limits:
        word = limits["enum"][0]
        others = (str(word).lower(), "", "NOTHING") if isinstance(word, str) else (0, 1234.5, "NOTHING")
        yield from (Case(f"word {x!r}", x, taken=False) for x in others if x not in limits["enum"])
    for value in _WRONG_FORMATS.get(limits.get("format", ""), ()):
        yield Case(f"format {value!r}", value, taken=False)
    if "pattern" in limits:
        yield from (Case(f"pattern {x!r}", x, taken=False) for x in _probes(limits) if not _matches(wire, limits, x))
    if fact["type"] == "array":
        yield from _wrong_items(limits["items"])


def _wrong_items(item: Any) -> Iterator[Case]:
    for value in (1, None, [], {}) if item["type"] == "string" else (1, None, [], "x"):
        yield Case(f"item {value!r}", [value], taken=False)
    if "max_length" in item:
        yield Case(f"item of {item['max_length']} + 1 characters", ["x" * (item["max_length"] + 1)], taken=False)
    wrong_texts = {"cidr": ("here", "192.0.2.0/33", "1.2.3"), "uuid": ("x",), "alpn-id": ("spdy", "")}
    for value in wrong_texts.get(item.get("format", ""), ()):
        yield Case(f"item {value!r}", [value], taken=False)


def _probes(limits: Any) -> Iterator[str]:
    yield from _PROBES
    if "max_length" in limits:
        yield "x" * limits["max_length"]
        yield "x" * (limits["max_length"] + 1)


_ALSO = {"key": r"[A-Za-z0-9!#$%&'*+,\-.^_`|~]+", "value": r"[\x21-\x7e]+"}
"""What rules want of a header's name and a path beside the patterns (matrices.l7rule_key, l7rule_value)."""


def _matches(wire: str, limits: Any, text: str) -> bool:
    shortest, longest = limits.get("min_length", 0), limits.get("max_length", len(text))
    fits = shortest <= len(text) <= longest and re.search(limits["pattern"], text) is not None
    return fits and (wire not in _ALSO or re.fullmatch(_ALSO[wire], text) is not None)

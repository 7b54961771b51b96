"""Hostile strings in every place of every resource that takes a string: refused in words, or kept exactly as sent.

Made from the field tables of the contract: plain attributes, items of lists, keys and values of objects; on create, on
update and inside a whole tree; then in paths, queries and headers. Everyday a few strings each; `long` tries them all."""

from __future__ import annotations

import string
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.integration.api.contract.family import COMPANIONS, OFFERS, TREE, Family, collection_path, resource_of
from tests.integration.api.contract.ledger import Ledger
from tests.integration.api.world import Answer, World

SPECIAL = "".join(x for x in string.printable if not x.isalnum())
UNICODE = (
    "\u00e9",  # one character
    "e\u0301",  # the same in two
    "\u00df\u0130\u0131",  # letters that change their length with their case
    "\u202e\u05d0\u0628",  # right to left
    "\u200b\u200d\ufeff",  # widthless
    "\u0085\u2028\u2029",  # ends of lines, elsewhere
    "\u00a0\u3000",  # spaces, elsewhere
    "\u4e2d\u6587",
    "\U0001f6a2\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\U0010fffd",
    "\ufffe\uffff",  # no characters
    "\ud7ff\ue000",  # beside the surrogates
    "\uff0f\uff02\uff1b",  # wide forms of / " ;
)
CONTROL = ("\0", "a\0b", "\n", "a\nb", "a\r\nb", "\t", "\x7f", "\x1b[31m", "\x80\x9f")
SURROGATES = ("\ud800", "a\udfffb", "\udc00\ud800")
LENGTHS = ("x" * 65_536, "\u4e2d" * 21_845, "%" * 65_536)
TRICKS = (
    *(
        "",
        " ",
        "a b",
        " a ",
        '"',
        '"a" #b',
        "'",
        "\\",
        "a\\ b",
        "#",
        "a # b",
        "${HOME}",
        "$HOME",
        "%[src]",
        "%s",
        "{x}",
    ),
    *(
        "-f",
        "--",
        "../../etc/passwd",
        "a,b",
        "a;b",
        "a|b",
        "`id`",
        "$(id)",
        "' OR 1=1 --",
        "<b>",
        "&amp;",
        "%00",
        "%0a",
    ),
    *("null", "None", "true", "1e999", "\\u0000", "\\ud800", "[]", "{}", "http://[", "http://a:99999/", "::", "0x7f.1"),
)
EVERYDAY = (
    *CONTROL[:3],
    "a\r\nb",
    *SURROGATES[:2],
    LENGTHS[0],
    SPECIAL[:32],
    UNICODE[8],
    UNICODE[0],
    '"a" #b',
    "%[src]",
    "\\",
)
EVERYTHING = tuple(
    dict.fromkeys(  # each once: what is named alike is a conflict, where names are unique
        (*CONTROL, *SURROGATES, *LENGTHS, *SPECIAL, *(f"a{x}b" for x in SPECIAL), SPECIAL[:32], *UNICODE, *TRICKS)
    )
)
EMPTY_IS_DEFAULT = ("project_id", "provider", "tenant_id", "tls_ciphers")
"""Of these an empty string is as if nothing was said, as in Octavia."""


def places(key: str) -> Iterator[tuple[str, str]]:
    """Every place for a string: the attribute, and what of its value is the string."""
    for wire, fact in resource_of(key)["fields"].items():
        items = fact.get("constraints", {}).get("items", {})
        if fact["type"] == "string":
            yield wire, "whole"
        elif fact["type"] == "array" and items.get("type") == "string":
            yield wire, "item"
        elif wire == "insert_headers":
            yield from ((wire, "key"), (wire, "value of X-Forwarded-For"))
        elif wire == "session_persistence":
            yield from ((wire, x) for x in ("type", "cookie_name", "persistence_granularity"))
        elif wire == "additional_vips":
            yield from ((wire, x) for x in ("subnet_id", "ip_address", "port_id"))


def put(wire: str, part: str, text: str) -> Any:
    """A value of the attribute with the string in its place."""
    match wire, part:
        case _, "whole":
            return text
        case _, "item":
            return [text]
        case "insert_headers", "key":
            return {text: "true"}
        case "insert_headers", _:
            return {"X-Forwarded-For": text}
        case "session_persistence", _:
            return {"type": "APP_COOKIE" if part == "cookie_name" else "SOURCE_IP", part: text}
        case _:
            return [{"subnet_id": "5ca1ab1e-0000-4000-8000-00000000dead", part: text}]


def is_kept(sent: Any, shown: Any) -> bool:
    if isinstance(sent, dict) and isinstance(shown, dict):
        return all(shown.get(name) == value for name, value in sent.items())
    return bool(shown == sent)


class Strings:
    def __init__(self, ledger: Ledger, family: Family, key: str) -> None:
        self.ledger, self.family, self.key = ledger, family, key

    async def try_at(self, wire: str, part: str, texts: tuple[str, ...], *, nested: bool) -> None:
        companions = {x: y for x, y in COMPANIONS.get(self.key, {}).get(wire, {}).items() if x != wire}
        fact = resource_of(self.key)["fields"][wire]
        to_change: str | None = None
        if fact["update"]["accepted"]:
            to_change = await self.family.made(self.key, **companions)
        for n, text in enumerate(texts):
            if n % 25 == 24:  # where what was made before is in nobody's way
                self.family = await Family.born(self.family.world)
                if to_change is not None:
                    to_change = await self.family.made(self.key, **companions)
            value = put(wire, part, text)
            name = f"{wire} {part}, string {n} ({text[:8]!a})"
            answer = await self.family.create(self.key, **companions, **{wire: value})
            await self.judge(f"{name} at create", wire, value, answer)
            if to_change is not None:
                answer = await self.family.update(self.key, to_change, **{wire: value})
                await self.judge(f"{name} at update", wire, value, answer)
            if nested and fact.get("nested_create", {}).get("accepted"):
                answer, shown = await self.family.create_nested(self.key, **{**companions, wire: value})
                self.check(f"{name} nested", wire, value, answer, shown)

    async def judge(self, name: str, wire: str, value: Any, answer: Answer) -> None:
        shown = answer.one(self.key) if answer.status < 300 else None
        self.check(name, wire, value, answer, shown)
        if shown is not None and self.key == "flavor" and "at create" in name:
            await self.family.world.call("DELETE", self.family.item(self.key, shown["id"]))  # its name is free again
        if shown is not None and self.key in TREE:
            read = await self.family.show(self.key, shown["id"])
            self.ledger.check(f"{name}: is read back", shown.get(wire), read.get(wire))

    def check(self, name: str, wire: str, value: Any, answer: Answer, shown: Any) -> None:
        if shown is None:
            refused = answer.status in (400, 404) and bool(answer.fault)
            self.ledger.check(f"{name}: is refused in words", True, refused, (answer.status, answer.body))
        elif resource_of(self.key)["fields"][wire]["in_response"]:
            ignored = wire in ("project_id", "tenant_id") and self.key != "loadbalancer"
            ignored |= value == "" and wire in EMPTY_IS_DEFAULT
            self.ledger.check(f"{name}: is kept", True, ignored or is_kept(value, shown.get(wire)), shown.get(wire))


@pytest.mark.parametrize("key", [*TREE, *OFFERS])
async def test_strings(world: World, ledger: Ledger, key: str) -> None:
    await try_strings(world, ledger, key, EVERYDAY, nested=False)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("key", [*TREE, *OFFERS])
async def test_every_string(world: World, ledger: Ledger, key: str) -> None:
    await try_strings(world, ledger, key, EVERYTHING, nested=key in TREE and key != "loadbalancer")


async def try_strings(world: World, ledger: Ledger, key: str, texts: tuple[str, ...], *, nested: bool) -> None:
    for wire, part in places(key):
        if resource_of(key)["fields"][wire]["create"]["accepted"]:
            await Strings(ledger, await Family.born(world), key).try_at(wire, part, texts, nested=nested)


async def test_strings_in_paths_and_queries(world: World, ledger: Ledger) -> None:
    family = await Family.born(world)
    texts = [x for x in EVERYTHING if len(x) < 100 and not any("\ud800" <= c <= "\udfff" for c in x)]
    for n, text in enumerate(texts):
        quoted = quote(text, safe="")
        for key in TREE:
            if text.strip("/") and "/" not in text and text not in (".", ".."):
                answer = await world.call("GET", f"/v2/lbaas/{collection_path(key)}/{text}".replace("?", "\uff1f"))
                ledger.check(f"path of {key}, string {n}", True, answer.status in (400, 404), answer.body)
        for argument in (
            "name",
            "id",
            "vip_address",
            "created_at",
            "tags",
            "sort",
            "limit",
            "marker",
            "fields",
            text or "x",
        ):
            where = f"loadbalancers?{quote(argument, safe='')}={quoted}"
            answer = await world.call("GET", where)
            fits = answer.status in (200, 400)
            ledger.check(f"query {argument!a}, string {n}", True, fits, answer.body)
        named = await world.call("DELETE", f"{family.item('loadbalancer')}?{quote(text or 'x', safe='')}=1")
        ledger.check(f"argument of DELETE, string {n}", True, named.status == 400 or text == "cascade", named.body)
    for n, header in enumerate(("\0", "a\nb", "\xff\xfe", "x" * 65_536, "{}", '"', "")):
        for name in ("X-Project-Id", "X-Roles", "X-User-Id", "Accept", "Content-Type", "If-Match", "If-None-Match"):
            answer = await world.call("GET", "loadbalancers", headers={name: header})
            ledger.check(f"header {name}, string {n}", True, answer.status < 500, answer.body)

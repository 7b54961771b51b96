"""Checks of an amphora driver that need no amphora: what it says of itself, rendering, previews, boot files, decoding.

Next: amphora_in_place.py."""

from __future__ import annotations

import asyncio
import gzip
import inspect
import re
import time
import tracemalloc
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import PurePosixPath

from msgspec.structs import replace

from frontinus.drivers.amphora.interface import INTERFACE_VERSION, AmphoraDriver, Refused, Rendered, RenderedFile
from frontinus.model.capabilities import FEATURES
from frontinus.model.enums import ListenerProtocol, ProvisioningStatus
from frontinus.model.errors import Rejected
from frontinus.model.ids import AmphoraId, new_id
from frontinus.model.previews import ACTIONS
from frontinus.model.tree import Amphora, LoadBalancerTree
from frontinus.testing.amphora_bench import AmphoraBench, amphora_at, made
from frontinus.testing.certificates import TestAuthority
from frontinus.testing.exam import Checks, NotApplicable, NotExaminable, Violation, expect, require
from frontinus.testing.exam_trees import pairs, secrets_for, terminating, with_member

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_SPECIFIERS = re.compile(r"\s*(?:(?:[<>]=?|[=!~]=)\s*[0-9][0-9A-Za-z.*+!-]*\s*(?:,\s*|$))+")
_LARGEST_DATAGRAM = 65_507
_MOST_MEMORY = 16 * 1024 * 1024
"""Bytes that decoding one datagram of 64 kB may take at most; what unpacks without a bound takes 60 MiB."""
_LONGEST_DECODE_S = 0.25
_NAMED = 30
"""Attributes that one finding lists; whoever mends these runs the exam again."""

checks: Checks[AmphoraBench] = Checks()


async def _rendering(driver: AmphoraDriver, tree: LoadBalancerTree, amphora: Amphora) -> Rendered:
    return driver.render(tree, amphora)


def require_terminates(driver: AmphoraDriver) -> None:
    """Raise NotApplicable for a driver that ends no TLS."""
    if ListenerProtocol.TERMINATED_HTTPS not in driver.offers().listener_protocols:
        raise NotApplicable("it offers no TERMINATED_HTTPS listeners, and so is handed no certificates")


# What it says of itself


@checks.claim("a driver states name, version, interface, the amphora versions it serves, and capabilities")
async def driver_states_what_it_is(bench: AmphoraBench) -> None:
    async with made(bench) as driver:
        require(driver.name, "it has no name")
        require(re.fullmatch(r"[0-9]+(\.[0-9]+)*[0-9A-Za-z.+-]*", driver.version), f"version {driver.version!r}")
        require(driver.interface == INTERFACE_VERSION, f"it is for interface {driver.interface}")
        require(_SPECIFIERS.fullmatch(driver.amphora_versions), f"amphora_versions {driver.amphora_versions!r}")
        offered = driver.offers()
        require(offered == driver.offers(), "it offers another thing when it is asked again")
        unknown = offered.features - FEATURES.keys()
        require(not unknown, f"it offers features that nobody knows: {sorted(unknown)}")
        require(offered.topologies, "it offers no topology")
        short = [prefix for prefix in driver.heartbeat_prefixes if len(prefix) != 4]
        require(not short, f"heartbeat_prefixes are four bytes each, not {short}")


# Rendering


@checks.claim("render is pure: same input, same text and digest, whichever driver and whenever")
async def render_is_pure(bench: AmphoraBench) -> None:
    async with made(bench) as driver, made(bench) as other:
        tree = bench.tree(driver, *bench.ports)
        amphora = amphora_at(bench.deaf_address, tree)
        first = driver.render(tree, amphora)
        driver.render(bench.tree(driver, bench.ports[0]), amphora)
        require(driver.render(tree, amphora) == first, "the second answer differs from the first")
        require(other.render(tree, amphora) == first, "another driver gives another answer")
        require(re.fullmatch("[0-9a-f]{64}", first.digest), f"digest {first.digest!r} is not sha256 in hex")
        await asyncio.sleep(1.05)  # a clock that is read to the second has moved on
        require(driver.render(tree, amphora) == first, "a second later the answer is another")


@checks.claim("render is pure: another process, which orders sets otherwise, gives the same digest")
async def render_is_the_same_elsewhere(bench: AmphoraBench) -> None:
    if bench.digest_elsewhere is None:
        raise NotExaminable("the bench has no `digest_elsewhere`")
    async with made(bench) as driver:
        rich = with_member(with_member(bench.tree(driver, *bench.ports), 10), 11)
        amphora = amphora_at(bench.deaf_address, rich)
        here = driver.render(rich, amphora).digest
        for _ in range(3):
            there = await bench.digest_elsewhere(rich, amphora)
            require(here == there, f"digest {here} here, {there} in another process: controllers would push for ever")


@checks.claim("the digest covers everything in it: what is configured otherwise has another")
async def digest_follows_the_configuration(bench: AmphoraBench) -> None:
    async with made(bench) as driver:
        tree = bench.tree(driver, bench.ports[0])
        amphora = amphora_at(bench.deaf_address, tree)
        another_port = replace(tree, listeners=(replace(tree.listeners[0], protocol_port=bench.ports[1]),))
        another_address = replace(tree, members=(replace(tree.members[0], address="127.0.0.2"),))
        trees = (tree, with_member(tree, 10), another_port, another_address)
        digests = [driver.render(x, amphora).digest for x in trees]
        require(len(set(digests)) == len(digests), "two configurations have one digest")


@checks.claim("what it offers it expresses: no offered attribute is without effect on the configuration")
async def capabilities_are_honoured(bench: AmphoraBench) -> None:
    ignored, refused, count = [], [], 0
    async with made(bench) as driver:
        authority = TestAuthority()
        for pair in pairs(driver.offers(), bench.vip_address, bench.ports[0]):
            amphora = amphora_at(bench.deaf_address, pair.before)
            secrets = secrets_for(authority, pair.before, pair.after)
            count += 1
            try:
                before, after = (driver.render(x, amphora, secrets).digest for x in (pair.before, pair.after))
            except Rejected as rejected:
                refused.append(f"{pair.name} ({rejected})")
                continue
            if before == after:
                ignored.append(pair.name)
    require(not ignored, f"of {count} attributes {len(ignored)} are offered and ignored: {_listed(ignored)}")
    require(not refused, f"of {count} attributes {len(refused)} are offered and rejected: {_listed(refused)}")


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f", and {more} more" if more > 0 else "")


@checks.claim("the digest covers the files too, and no file shows its content when printed")
async def digest_follows_the_secrets(bench: AmphoraBench) -> None:
    async with made(bench) as driver:
        require_terminates(driver)
        tree = terminating(bench.tree(driver, bench.ports[0]))
        amphora = amphora_at(bench.deaf_address, tree)
        authority = TestAuthority()
        old, new = secrets_for(authority, tree), secrets_for(authority, tree)
        first = driver.render(tree, amphora, old)
        require(driver.render(tree, amphora, old) == first, "the second answer differs from the first")
        require(driver.render(tree, amphora, new).digest != first.digest, "another certificate has the same digest")


@checks.claim("private keys are in private files and nowhere else; file names are single, and unique")
async def keys_stay_private(bench: AmphoraBench) -> None:
    async with made(bench) as driver:
        require_terminates(driver)
        tree = terminating(bench.tree(driver, bench.ports[0]))
        secrets = secrets_for(TestAuthority(), tree)
        rendered = driver.render(tree, amphora_at(bench.deaf_address, tree), secrets)
        names = [file.name for file in rendered.files]
        require(len(set(names)) == len(names), "two files have one name")
        for name in names:
            require(name not in {"", ".", ".."} and "/" not in name, f"{name!r} is not one component of a path")
        shown = repr(rendered).encode()
        for key in (x.private_key.splitlines()[1] for x in secrets.certificates.values()):
            require(key not in rendered.text.encode(), "a private key stands in the text")
            require(key not in shown, "a private key is printed with what is rendered")
            public = [file.name for file in rendered.files if not file.private and key in file.content]
            require(not public, f"a private key is in a file that is not private: {public}")


@checks.claim("render raises Rejected for a reference that was not resolved")
async def unresolved_is_rejected(bench: AmphoraBench) -> None:
    async with made(bench) as driver:
        require_terminates(driver)
        tree = terminating(bench.tree(driver, bench.ports[0]))
        amphora = amphora_at(bench.deaf_address, tree)
        try:
            await expect(Rejected, _rendering(driver, tree, amphora), "a reference that was not resolved")
        except Violation:
            raise
        except Exception as error:  # the driver is on trial
            raise Violation(f"Rejected was due, and it raised {error!r}") from error


@checks.claim("it renders the wanted tree: what is to be deleted is not in it")
async def deleted_objects_are_not_rendered(bench: AmphoraBench) -> None:
    async with made(bench) as driver:
        tree = bench.tree(driver, *bench.ports)
        leaving = replace(
            tree.listeners[1], delete_requested=True, provisioning_status=ProvisioningStatus.PENDING_DELETE
        )
        without = replace(tree, listeners=tree.listeners[:1])
        amphora = amphora_at(bench.deaf_address, tree)
        rendered = driver.render(replace(tree, listeners=(tree.listeners[0], leaving)), amphora)
        require(rendered == driver.render(without, amphora), "a listener to be deleted is rendered")


@checks.claim("a tenant's string is expressed, or Rejected names field and object; nothing else is raised")
async def hostile_strings_are_expressed_or_rejected(bench: AmphoraBench) -> None:
    hostile = (
        'a"b',
        "a\\",
        "a b#c",
        "a\nbind :1",
        "a\r\n",
        "a\x00b",
        "${HOME}",
        "%[env(X)]",
        "\u202e",
        "\U0001f600",
        "é" * 255,
    )
    async with made(bench) as driver:
        tree = bench.tree(driver, bench.ports[0])
        amphora = amphora_at(bench.deaf_address, tree)
        for text in hostile:
            named = replace(
                tree,
                load_balancer=replace(tree.load_balancer, name=text, description=text),
                listeners=tuple(replace(x, name=text, description=text) for x in tree.listeners),
                pools=tuple(replace(x, name=text, description=text) for x in tree.pools),
                members=tuple(replace(x, name=text) for x in tree.members),
            )
            try:
                driver.render(named, amphora)
            except Rejected as rejected:
                require(rejected.field, f"{text!r} is rejected without naming a field")
                require(rejected.subject is not None, f"{text!r} is rejected without naming an object")


# Previews


@checks.claim("preview is pure, from any thread; tells equals unchanged and shows what differs")
async def preview_is_pure(bench: AmphoraBench) -> None:
    async with made(bench) as driver, made(bench) as other:
        tree = bench.tree(driver, bench.ports[0])
        amphora = amphora_at(bench.deaf_address, tree)
        old = driver.render(tree, amphora)
        new = driver.render(with_member(tree, 10), amphora)
        for before, after in ((None, old), (old, new), (old, old), (old, None), (None, None)):
            told = driver.preview(before, after)
            require(told == driver.preview(before, after) == other.preview(before, after), "it answers differently")
            require(told == await asyncio.to_thread(driver.preview, before, after), "a thread gets another answer")
            require(told.action in ACTIONS, f"action {told.action!r}")
        same = driver.preview(old, old)
        require((same.action, same.commands, same.diff) == ("unchanged", (), ""), f"of equals: {same}")
        if old.text != new.text:
            require(driver.preview(old, new).diff, "it shows no difference")


@checks.claim("a preview shows nothing of what is in private files")
async def preview_keeps_secrets(bench: AmphoraBench) -> None:
    async with made(bench) as driver:
        tree = bench.tree(driver, bench.ports[0])
        plain = driver.render(tree, amphora_at(bench.deaf_address, tree))
        keys = [
            replace(plain, digest=str(n) * 64, files=(RenderedFile(name="key.pem", content=b"PRIVATE KEY %d" % n),))
            for n in (1, 2)
        ]
        for before, after in ((None, keys[0]), (keys[0], keys[1]), (keys[1], plain), (plain, keys[0])):
            told = driver.preview(before, after)
            require("PRIVATE KEY" not in repr(told), f"it shows a key: {told}")
        if ListenerProtocol.TERMINATED_HTTPS not in driver.offers().listener_protocols:
            return
        ending = terminating(tree)
        secrets = secrets_for(TestAuthority(), ending)
        rendered = driver.render(ending, amphora_at(bench.deaf_address, ending), secrets)
        shown = repr(driver.preview(plain, rendered))
        for key in (x.private_key.decode().splitlines()[1] for x in secrets.certificates.values()):
            require(key not in shown, "it shows the key of a listener")


@checks.claim("boot_files may be repeated, and its paths lie inside the place")
async def boot_files_repeat(bench: AmphoraBench) -> None:
    async with made(bench) as driver:
        amphora_id = AmphoraId(new_id())
        first = driver.boot_files(amphora_id, bench.deaf_address)
        again = driver.boot_files(amphora_id, bench.deaf_address)
        require(set(first.files) == set(again.files), "the second call makes other files")
        for name in first.files:
            path = PurePosixPath(name)
            require(not path.is_absolute() and ".." not in path.parts, f"{name!r} leads out of the place")


# Decoding


def _junk() -> Iterator[bytes]:
    yield from (b"", b"\x00", b"{}", b"[]", b"null", b"FRH1", b"FRH1" + b"\x00" * 200, bytes(range(256)))
    yield b"x\x9c" + b"A" * 64
    yield b"A" * _LARGEST_DATAGRAM
    for text in (b"[" * _LARGEST_DATAGRAM, b'{"a":' * 13_000, b"1" * _LARGEST_DATAGRAM, b'{"id": "\xff\xfe"}'):
        yield text
        yield zlib.compress(text)


@cache
def _packed_zeros() -> tuple[bytes, ...]:
    zeros = bytes(60_000_000)
    return zlib.compress(zeros, 9), gzip.compress(zeros, 9)


def _bombs(driver: AmphoraDriver) -> Iterator[bytes]:
    """Datagrams that are small, and large for whoever unpacks them."""
    for packed in _packed_zeros():
        yield packed
        # What stands before or behind the packed part is a guess: a signature, a header.
        for around in (32, 64):
            yield packed + bytes(around)
            yield bytes(around) + packed
        for prefix in driver.heartbeat_prefixes:
            yield prefix + packed


@checks.claim("decode raises Refused for whatever is no heartbeat, and nothing else")
async def junk_is_refused(bench: AmphoraBench) -> None:
    async with made(bench) as driver:
        for datagram in _junk():
            try:
                heartbeat = driver.decode(datagram, _NOW)
            except Refused as refused:
                require(refused.reason, f"{datagram[:16]!r} is refused without a reason")
            except Exception as error:  # the driver is on trial
                raise Violation(f"{datagram[:16]!r} ({len(datagram)} bytes): it raised {error!r}"[:300]) from error
            else:
                require(False, f"{datagram[:16]!r} was taken for {heartbeat}")


@checks.claim("decode never blocks, and never allocates more than a bounded amount")
async def decode_is_bounded(bench: AmphoraBench) -> None:
    async with made(bench) as driver:
        for datagram in (*_bombs(driver), *_junk()):
            took = min(_decoding(driver, datagram) for _ in range(2))
            require(took < _LONGEST_DECODE_S, f"a datagram of {len(datagram)} bytes took {took:.2f} s")
        tracemalloc.start()
        try:
            for datagram in _bombs(driver):
                tracemalloc.reset_peak()
                before = tracemalloc.get_traced_memory()[0]
                _decoding(driver, datagram)
                most = tracemalloc.get_traced_memory()[1] - before
                require(most < _MOST_MEMORY, f"a datagram of {len(datagram)} bytes took {most >> 20} MiB of memory")
        finally:
            tracemalloc.stop()


def _decoding(driver: AmphoraDriver, datagram: bytes) -> float:
    began = time.perf_counter()
    try:
        driver.decode(datagram, _NOW)
    except Exception:  # noqa: BLE001, S110 - another check says what may be raised
        pass
    return time.perf_counter() - began


@checks.claim("decode verifies, then parses: a genuine heartbeat is read, one with any part changed is Refused")
async def changed_heartbeat_is_refused(bench: AmphoraBench) -> None:
    if bench.datagram is None:
        raise NotExaminable("the bench has no `datagram`")
    async with made(bench) as driver:
        amphora_id = AmphoraId(new_id())
        told = bench.datagram(driver, amphora_id)
        genuine = await told if inspect.isawaitable(told) else told
        now = datetime.now(UTC)
        require(driver.decode(genuine, now).amphora_id == amphora_id, "it was read as another amphora's")
        prefixes = driver.heartbeat_prefixes
        require(
            not prefixes or genuine.startswith(prefixes),
            f"it begins with {genuine[:4]!r}, which is none of heartbeat_prefixes: the kernel would drop it",
        )
        for place in range(len(genuine)):
            changed = bytearray(genuine)
            changed[place] ^= 1
            for forged in (bytes(changed), genuine[:place]):
                try:
                    driver.decode(forged, now)
                except Refused:
                    continue
                require(False, f"changed or cut at byte {place} of {len(genuine)}, and accepted")
        for longer in (genuine + b"\x00", genuine + genuine):
            try:
                driver.decode(longer, now)
            except Refused:
                continue
            require(False, "something follows it, and it is accepted")


CHECKS = checks.all()

"""Examines an amphora driver against drivers/amphora/interface.py. How to use it: exam.py.

Rendering, boot files and decoding are examined without an amphora; the rest needs a bench that can start one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath

from msgspec.structs import replace

from frontinus.drivers.amphora.interface import INTERFACE_VERSION, AmphoraDriver, Refused, Rendered, RenderedFile
from frontinus.model.capabilities import FEATURES
from frontinus.model.certificates import Secrets, secret_uses
from frontinus.model.enums import AmphoraStatus, LbAlgorithm, ListenerProtocol, PoolProtocol, ProvisioningStatus
from frontinus.model.errors import BindRefused, Incompatible, Rejected, Retry
from frontinus.model.ids import (
    AmphoraId,
    ListenerId,
    LoadBalancerId,
    MemberId,
    NetworkId,
    PoolId,
    PortId,
    ProjectId,
    SubnetId,
    new_id,
)
from frontinus.model.previews import ACTIONS
from frontinus.model.tree import Amphora, Listener, LoadBalancer, LoadBalancerTree, Member, Pool, Vip
from frontinus.testing.certificates import TestAuthority
from frontinus.testing.exam import Checks, NotExaminable, Report, expect, hold, require

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_PROJECT = ProjectId("conformance")
_SPECIFIERS = re.compile(r"\s*(?:(?:[<>]=?|[=!~]=)\s*[0-9][0-9A-Za-z.*+!-]*\s*(?:,\s*|$))+")
_SLOWEST_INFO_S = 5.0
"""The interface says about two; more than twice that is not about."""


@dataclass(frozen=True)
class AmphoraBench:
    """`place` starts an amphora with the driver's boot files, gives the management address once its agent answers, and
    takes it away at the end; None: there is none to examine on. `vip_address` and two `ports` are free to listen on
    there; `hold_port` takes an address and port from the amphora for a while. `deaf_address` is one where no agent
    answers. `datagram` makes a genuine heartbeat of an amphora, which the driver has not seen."""

    factory: Callable[[], AmphoraDriver]
    place: Callable[[AmphoraDriver, AmphoraId], AbstractAsyncContextManager[str]] | None = None
    vip_address: str = "127.64.0.10"
    ports: tuple[int, int] = (18_080, 18_081)
    hold_port: Callable[[str, int], AbstractContextManager[object]] | None = None
    deaf_address: str = "127.191.255.254"
    datagram: Callable[[AmphoraDriver, AmphoraId], bytes] | None = None


async def examine(bench: AmphoraBench, *, limit: float = 60.0) -> Report:
    """Run every check; each may take `limit` seconds."""
    return await hold(CHECKS, bench, limit)


_checks: Checks[AmphoraBench] = Checks()


# What is balanced in an exam


def _tree(bench: AmphoraBench, *ports: int) -> LoadBalancerTree:
    """A load balancer with an HTTP listener on each port, all on one pool of one member."""
    load_balancer_id, pool_id = LoadBalancerId(new_id()), PoolId(new_id())
    vip = Vip(
        address=bench.vip_address,
        subnet_id=SubnetId(new_id()),
        network_id=NetworkId(new_id()),
        port_id=PortId(new_id()),
    )
    return LoadBalancerTree(
        load_balancer=LoadBalancer(id=load_balancer_id, project_id=_PROJECT, vip=vip, created_at=_NOW),
        pools=(
            Pool(
                id=pool_id,
                load_balancer_id=load_balancer_id,
                project_id=_PROJECT,
                protocol=PoolProtocol.HTTP,
                lb_algorithm=LbAlgorithm.ROUND_ROBIN,
                created_at=_NOW,
            ),
        ),
        members=(_member(load_balancer_id, pool_id, 9),),
        listeners=tuple(
            Listener(
                id=ListenerId(new_id()),
                load_balancer_id=load_balancer_id,
                project_id=_PROJECT,
                protocol=ListenerProtocol.HTTP,
                protocol_port=port,
                default_pool_id=pool_id,
                created_at=_NOW,
            )
            for port in ports
        ),
    )


def _member(load_balancer_id: LoadBalancerId, pool_id: PoolId, port: int) -> Member:
    return Member(
        id=MemberId(new_id()),
        load_balancer_id=load_balancer_id,
        project_id=_PROJECT,
        pool_id=pool_id,
        address="127.0.0.1",
        protocol_port=port,
        created_at=_NOW,
    )


def _amphora(tree: LoadBalancerTree, address: str, amphora_id: AmphoraId | None = None) -> Amphora:
    return Amphora(
        id=amphora_id or AmphoraId(new_id()),
        load_balancer_id=tree.id,
        project_id=_PROJECT,
        status=AmphoraStatus.ALLOCATED,
        management_address=address,
        # Now, not the exam's fixed time: a driver may think a certificate from then old.
        created_at=datetime.now(UTC),
    )


def _terminating(tree: LoadBalancerTree) -> LoadBalancerTree:
    """The tree with its first listener ending TLS, with a default certificate and one more for another name."""
    listener = replace(
        tree.listeners[0],
        protocol=ListenerProtocol.TERMINATED_HTTPS,
        default_tls_container_ref=f"default:{new_id()}",
        sni_container_refs=(f"sni:{new_id()}",),
    )
    return replace(tree, listeners=(listener, *tree.listeners[1:]))


def _terminates(driver: AmphoraDriver) -> bool:
    return ListenerProtocol.TERMINATED_HTTPS in driver.capabilities.listener_protocols


def _secrets(tree: LoadBalancerTree, authority: TestAuthority) -> Secrets:
    """A fresh certificate for every reference."""
    names = {use.reference: f"{number}.example.org" for number, use in enumerate(secret_uses(tree))}
    return Secrets(certificates={reference: authority.issue(name) for reference, name in names.items()})


async def _rendering(driver: AmphoraDriver, tree: LoadBalancerTree, amphora: Amphora) -> Rendered:
    return driver.render(tree, amphora)


@asynccontextmanager
async def _driver(bench: AmphoraBench) -> AsyncIterator[AmphoraDriver]:
    driver = bench.factory()
    try:
        yield driver
    finally:
        await driver.close()


@asynccontextmanager
async def _running(bench: AmphoraBench, tree: LoadBalancerTree) -> AsyncIterator[tuple[AmphoraDriver, Amphora]]:
    """A driver, and an amphora whose agent answers and to which nothing was applied yet."""
    if bench.place is None:
        raise NotExaminable("the bench has no `place`")
    async with _driver(bench) as driver:
        amphora_id = AmphoraId(new_id())
        async with bench.place(driver, amphora_id) as address:
            yield driver, _amphora(tree, address, amphora_id)


async def _require_runs(driver: AmphoraDriver, amphora: Amphora, tree: LoadBalancerTree) -> None:
    wanted = driver.render(tree, amphora)
    info = await driver.info(amphora, tree)
    require(info.running, "the agent says that nothing runs")
    require(info.digest in (None, wanted.digest), f"{info.digest} runs, not {wanted.digest}")


# What it says of itself


@_checks.claim("a driver states name, version, interface, the amphora versions it serves, and capabilities")
async def driver_states_what_it_is(bench: AmphoraBench) -> None:
    async with _driver(bench) as driver:
        require(driver.name, "it has no name")
        require(re.fullmatch(r"[0-9]+(\.[0-9]+)*[0-9A-Za-z.+-]*", driver.version), f"version {driver.version!r}")
        require(driver.interface == INTERFACE_VERSION, f"it is for interface {driver.interface}")
        require(_SPECIFIERS.fullmatch(driver.amphora_versions), f"amphora_versions {driver.amphora_versions!r}")
        unknown = driver.capabilities.features - FEATURES.keys()
        require(not unknown, f"it offers features that nobody knows: {sorted(unknown)}")
        require(driver.capabilities.topologies, "it offers no topology")


# Rendering


@_checks.claim("render is pure: same input, same text and digest, whichever driver and whenever")
async def render_is_pure(bench: AmphoraBench) -> None:
    tree = _tree(bench, *bench.ports)
    amphora = _amphora(tree, bench.deaf_address)
    async with _driver(bench) as driver, _driver(bench) as other:
        first = driver.render(tree, amphora)
        driver.render(_tree(bench, bench.ports[0]), amphora)
        require(driver.render(tree, amphora) == first, "the second answer differs from the first")
        require(other.render(tree, amphora) == first, "another driver gives another answer")
        require(re.fullmatch("[0-9a-f]{64}", first.digest), f"digest {first.digest!r} is not sha256 in hex")


@_checks.claim("the digest covers everything in it: what is configured otherwise has another")
async def digest_follows_the_configuration(bench: AmphoraBench) -> None:
    tree = _tree(bench, bench.ports[0])
    amphora = _amphora(tree, bench.deaf_address)
    pool = tree.pools[0]
    another_member = replace(tree, members=(*tree.members, _member(tree.id, pool.id, 10)))
    another_port = replace(tree, listeners=(replace(tree.listeners[0], protocol_port=bench.ports[1]),))
    another_address = replace(tree, members=(replace(tree.members[0], address="127.0.0.2"),))
    async with _driver(bench) as driver:
        digests = [driver.render(x, amphora).digest for x in (tree, another_member, another_port, another_address)]
        require(len(set(digests)) == len(digests), "two configurations have one digest")


@_checks.claim("the digest covers the files too, and no file shows its content when printed")
async def digest_follows_the_secrets(bench: AmphoraBench) -> None:
    tree = _terminating(_tree(bench, bench.ports[0]))
    amphora = _amphora(tree, bench.deaf_address)
    authority = TestAuthority()
    old, new = _secrets(tree, authority), _secrets(tree, authority)
    async with _driver(bench) as driver:
        if not _terminates(driver):
            return
        first = driver.render(tree, amphora, old)
        require(driver.render(tree, amphora, old) == first, "the second answer differs from the first")
        require(driver.render(tree, amphora, new).digest != first.digest, "another certificate has the same digest")
        require(len({file.name for file in first.files}) == len(first.files), "two files have one name")
        shown = repr(first).encode()
        for key in (x.private_key for x in old.certificates.values()):
            require(key.splitlines()[1] not in shown, "the private key is printed with it")
        await expect(Rejected, _rendering(driver, tree, amphora), "a reference that was not resolved")


@_checks.claim("it renders the wanted tree: what is to be deleted is not in it")
async def deleted_objects_are_not_rendered(bench: AmphoraBench) -> None:
    tree = _tree(bench, *bench.ports)
    leaving = replace(tree.listeners[1], delete_requested=True, provisioning_status=ProvisioningStatus.PENDING_DELETE)
    without = replace(tree, listeners=tree.listeners[:1])
    amphora = _amphora(tree, bench.deaf_address)
    async with _driver(bench) as driver:
        rendered = driver.render(replace(tree, listeners=(tree.listeners[0], leaving)), amphora)
        require(rendered == driver.render(without, amphora), "a listener to be deleted is rendered")


@_checks.claim("a tenant's string is expressed, or Rejected names field and object; nothing else is raised")
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
    tree = _tree(bench, bench.ports[0])
    amphora = _amphora(tree, bench.deaf_address)
    async with _driver(bench) as driver:
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


@_checks.claim("preview is pure, tells equals unchanged and shows what differs")
async def preview_is_pure(bench: AmphoraBench) -> None:
    tree = _tree(bench, bench.ports[0])
    amphora = _amphora(tree, bench.deaf_address)
    async with _driver(bench) as driver, _driver(bench) as other:
        old = driver.render(tree, amphora)
        pool = tree.pools[0]
        new = driver.render(replace(tree, members=(*tree.members, _member(tree.id, pool.id, 10))), amphora)
        for before, after in ((None, old), (old, new), (old, old), (old, None), (None, None)):
            told = driver.preview(before, after)
            require(told == driver.preview(before, after) == other.preview(before, after), "it answers differently")
            require(told.action in ACTIONS, f"action {told.action!r}")
        same = driver.preview(old, old)
        require((same.action, same.commands, same.diff) == ("unchanged", (), ""), f"of equals: {same}")
        if old.text != new.text:
            require(driver.preview(old, new).diff, "it shows no difference")


@_checks.claim("a preview shows nothing of what is in private files")
async def preview_keeps_secrets(bench: AmphoraBench) -> None:
    tree = _tree(bench, bench.ports[0])
    async with _driver(bench) as driver:
        plain = driver.render(tree, _amphora(tree, bench.deaf_address))
        keys = [
            replace(plain, digest=str(n) * 64, files=(RenderedFile(name="key.pem", content=b"PRIVATE KEY %d" % n),))
            for n in (1, 2)
        ]
        for before, after in ((None, keys[0]), (keys[0], keys[1]), (keys[1], plain), (plain, keys[0])):
            told = driver.preview(before, after)
            require("PRIVATE KEY" not in repr(told), f"it shows a key: {told}")


@_checks.claim("preview foretells what apply does")
async def preview_foretells_apply(bench: AmphoraBench) -> None:
    tree = _tree(bench, bench.ports[0])
    pool = tree.pools[0]
    more_members = replace(tree, members=(*tree.members, _member(tree.id, pool.id, 10)))
    another_port = replace(more_members, listeners=(replace(tree.listeners[0], protocol_port=bench.ports[1]),))
    before = None
    async with _running(bench, tree) as (driver, amphora):
        for each in (tree, tree, more_members, another_port, replace(another_port, listeners=())):
            rendered = driver.render(each, amphora)
            told = driver.preview(before, rendered).action
            done = (await driver.apply(amphora, each, rendered)).action
            require(told == done, f"foretold {told}, done {done}")
            before = rendered


@_checks.claim("boot_files may be repeated, and its paths lie inside the place")
async def boot_files_repeat(bench: AmphoraBench) -> None:
    async with _driver(bench) as driver:
        amphora_id = AmphoraId(new_id())
        first = driver.boot_files(amphora_id, bench.deaf_address)
        again = driver.boot_files(amphora_id, bench.deaf_address)
        require(set(first.files) == set(again.files), "the second call makes other files")
        for name in first.files:
            path = PurePosixPath(name)
            require(not path.is_absolute() and ".." not in path.parts, f"{name!r} leads out of the place")


# Decoding


@_checks.claim("decode raises Refused for whatever is no heartbeat, and nothing else")
async def junk_is_refused(bench: AmphoraBench) -> None:
    junk = (
        b"",
        b"\x00",
        b"{}",
        b"FRH1",
        b"FRH1" + b"\x00" * 200,
        bytes(range(256)),
        b"x\x9c" + b"A" * 64,
        b"A" * 65_507,
    )
    async with _driver(bench) as driver:
        for datagram in junk:
            try:
                heartbeat = driver.decode(datagram, _NOW)
            except Refused as refused:
                require(refused.reason, f"{datagram[:16]!r} is refused without a reason")
            else:
                require(False, f"{datagram[:16]!r} was taken for {heartbeat}")


@_checks.claim("decode verifies, then parses: a genuine heartbeat is read, one with any part changed is Refused")
async def changed_heartbeat_is_refused(bench: AmphoraBench) -> None:
    if bench.datagram is None:
        raise NotExaminable("the bench has no `datagram`")
    async with _driver(bench) as driver:
        amphora_id = AmphoraId(new_id())
        genuine = bench.datagram(driver, amphora_id)
        require(driver.decode(genuine, datetime.now(UTC)).amphora_id == amphora_id, "it was read as another amphora's")
        for place in range(len(genuine)):
            changed = bytearray(genuine)
            changed[place] ^= 1
            for forged in (bytes(changed), genuine[:place]):
                try:
                    driver.decode(forged, datetime.now(UTC))
                except Refused:
                    continue
                require(False, f"changed or cut at byte {place} of {len(genuine)}, and accepted")


# An amphora


@_checks.claim("info asks the agent, also before anything was applied")
async def info_answers(bench: AmphoraBench) -> None:
    tree = _tree(bench, bench.ports[0])
    async with _running(bench, tree) as (driver, amphora):
        info = await driver.info(amphora, tree)
        require(info.agent_version, "it has no agent version")
        require(not info.running, "it is said to balance before anything was applied")
        require(info.digest is None, f"digest {info.digest} before anything was applied")


@_checks.claim("renew_identity gives a running amphora the identity of identity_digest, and disturbs nothing")
async def identity_is_renewed(bench: AmphoraBench) -> None:
    tree = _tree(bench, bench.ports[0])
    async with _running(bench, tree) as (driver, amphora), _driver(bench) as other:
        if not driver.identity_digest:
            await expect(Incompatible, driver.renew_identity(amphora), "renew_identity without an identity")
            return
        await driver.apply(amphora, tree, driver.render(tree, amphora))
        first, second = await driver.renew_identity(amphora), await other.renew_identity(amphora)
        for identity in (first, second):
            require(identity.digest == driver.identity_digest, f"{identity.digest} is not identity_digest")
            require(identity.renew_at < identity.expires_at, "it is due only when it is over")
        await _require_runs(driver, amphora, tree)


@_checks.claim("when apply returns, that is what runs")
async def apply_runs_what_was_rendered(bench: AmphoraBench) -> None:
    tree = _tree(bench, bench.ports[0])
    async with _running(bench, tree) as (driver, amphora):
        rendered = driver.render(tree, amphora)
        applied = await driver.apply(amphora, tree, rendered)
        require(applied.digest == rendered.digest, f"applied {applied.digest}, rendered {rendered.digest}")
        await _require_runs(driver, amphora, tree)


@_checks.claim("apply is idempotent, also by another driver")
async def apply_repeats(bench: AmphoraBench) -> None:
    tree = _tree(bench, bench.ports[0])
    async with _running(bench, tree) as (driver, amphora), _driver(bench) as other:
        rendered = driver.render(tree, amphora)
        await driver.apply(amphora, tree, rendered)
        for again in (driver, other):
            applied = await again.apply(amphora, tree, rendered)
            require(applied.digest == rendered.digest, f"applied {applied.digest}, rendered {rendered.digest}")
        await _require_runs(driver, amphora, tree)


@_checks.claim("apply brings the amphora from any configuration to any other, and back")
async def apply_goes_anywhere(bench: AmphoraBench) -> None:
    tree = _tree(bench, *bench.ports)
    fewer = replace(tree, listeners=tree.listeners[:1])
    more_members = replace(tree, members=(*tree.members, _member(tree.id, tree.pools[0].id, 10)))
    async with _running(bench, tree) as (driver, amphora), _driver(bench) as other:
        for wanted in (fewer, more_members, tree, fewer, tree):
            await driver.apply(amphora, wanted, driver.render(wanted, amphora))
            await _require_runs(driver, amphora, wanted)
        # A controller that knows nothing of what went before.
        await other.apply(amphora, fewer, other.render(fewer, amphora))
        await _require_runs(other, amphora, fewer)
        # And the first again, whose memory is out of date now.
        await driver.apply(amphora, tree, driver.render(tree, amphora))
        await _require_runs(driver, amphora, tree)


@_checks.claim("a load balancer on which nothing listens can be applied, and listeners come and go")
async def apply_without_listeners(bench: AmphoraBench) -> None:
    tree = _tree(bench, bench.ports[0])
    bare = replace(tree, listeners=())
    async with _running(bench, tree) as (driver, amphora):
        for wanted in (bare, tree, bare, tree):
            rendered = driver.render(wanted, amphora)
            applied = await driver.apply(amphora, wanted, rendered)
            require(applied.digest == rendered.digest, f"applied {applied.digest}, rendered {rendered.digest}")
        await _require_runs(driver, amphora, tree)


@_checks.claim("BindRefused with nothing changed when the kernel gives some listeners no port; the rest can be applied")
async def refused_bind_changes_nothing(bench: AmphoraBench) -> None:
    if bench.hold_port is None:
        raise NotExaminable("the bench has no `hold_port`")
    tree = _tree(bench, *bench.ports)
    free, held = tree.listeners
    rest = tree.without({held.id})
    async with _running(bench, tree) as (driver, amphora):
        await driver.apply(amphora, rest, driver.render(rest, amphora))
        with bench.hold_port(bench.vip_address, held.protocol_port):
            call = driver.apply(amphora, tree, driver.render(tree, amphora))
            error = await expect(BindRefused, call, "a port that another holds")
            named = {bind.listener_id for bind in error.binds} if isinstance(error, BindRefused) else set()
            require(named == {held.id}, f"it names {named}, not {held.id}; {free.id} is free")
            await _require_runs(driver, amphora, rest)
        await driver.apply(amphora, tree, driver.render(tree, amphora))
        await _require_runs(driver, amphora, tree)


@_checks.claim("every method may be called from many tasks at once")
async def many_tasks_at_once(bench: AmphoraBench) -> None:
    tree = _tree(bench, *bench.ports)
    fewer = replace(tree, listeners=tree.listeners[:1])
    async with _running(bench, tree) as (driver, amphora):
        wanted = [fewer, tree, fewer, tree]
        await asyncio.gather(
            *(driver.apply(amphora, each, driver.render(each, amphora)) for each in wanted),
            *(driver.info(amphora, tree) for _ in range(4)),
        )
        await driver.apply(amphora, tree, driver.render(tree, amphora))
        await _require_runs(driver, amphora, tree)


@_checks.claim("apply brings changed files to the amphora, also by a driver that knows nothing of those before")
async def apply_carries_files(bench: AmphoraBench) -> None:
    tree = _terminating(_tree(bench, bench.ports[0]))
    authority = TestAuthority()
    old, new = _secrets(tree, authority), _secrets(tree, authority)
    plain = replace(tree, listeners=())
    async with _running(bench, tree) as (driver, amphora), _driver(bench) as other:
        if not _terminates(driver):
            return
        for by, secrets in ((driver, old), (driver, new), (other, old), (driver, new), (driver, new)):
            rendered = by.render(tree, amphora, secrets)
            await by.apply(amphora, tree, rendered)
            info = await by.info(amphora, tree)
            require(info.running and info.digest in (None, rendered.digest), f"{info.digest}, not {rendered.digest}")
        await driver.apply(amphora, plain, driver.render(plain, amphora))
        await driver.apply(amphora, tree, driver.render(tree, amphora, old))


@_checks.claim("an interrupted apply is completed by the next")
async def interrupted_apply_is_completed(bench: AmphoraBench) -> None:
    tree = _tree(bench, *bench.ports)
    fewer = replace(tree, listeners=tree.listeners[:1])
    async with _running(bench, tree) as (driver, amphora):
        await driver.apply(amphora, fewer, driver.render(fewer, amphora))
        for turns in (1, 3, 10):
            task = asyncio.create_task(driver.apply(amphora, tree, driver.render(tree, amphora)))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            await driver.apply(amphora, fewer, driver.render(fewer, amphora))
            await _require_runs(driver, amphora, fewer)


@_checks.claim("retire stops balancing, and may be repeated")
async def retire_stops_balancing(bench: AmphoraBench) -> None:
    tree = _tree(bench, bench.ports[0])
    async with _running(bench, tree) as (driver, amphora):
        await driver.apply(amphora, tree, driver.render(tree, amphora))
        await driver.retire(amphora, tree)
        require(not (await driver.info(amphora, tree)).running, "it balances still")
        await driver.retire(amphora, tree)


@_checks.claim("info, apply and retire raise Retry when the agent does not answer; info within about two seconds")
async def silence_is_retry(bench: AmphoraBench) -> None:
    tree = _tree(bench, bench.ports[0])
    clock = asyncio.get_running_loop()
    async with _driver(bench) as driver:
        amphora = _amphora(tree, bench.deaf_address)
        began = clock.time()
        await expect(Retry, driver.info(amphora, tree), "info of a silent amphora")
        took = clock.time() - began
        require(took < _SLOWEST_INFO_S, f"info took {took:.1f} s to find out")
        await expect(Retry, driver.apply(amphora, tree, driver.render(tree, amphora)), "apply to a silent amphora")
        await expect(Retry, driver.retire(amphora, tree), "retire of a silent amphora")


@_checks.claim("close lets go of connections; the amphorae are not touched")
async def close_touches_no_amphora(bench: AmphoraBench) -> None:
    tree = _tree(bench, bench.ports[0])
    async with _running(bench, tree) as (driver, amphora):
        other = bench.factory()
        await other.apply(amphora, tree, other.render(tree, amphora))
        await other.close()
        await _require_runs(driver, amphora, tree)


CHECKS = _checks.all()

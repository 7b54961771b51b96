"""Checks of an amphora driver against an amphora that runs: carrying configurations, asking, renewing, retiring, traffic."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from msgspec.structs import replace

from frontinus.drivers.amphora.interface import AmphoraDriver
from frontinus.model.enums import ListenerProtocol
from frontinus.model.errors import BindRefused, Incompatible, Retry
from frontinus.model.previews import ACTIONS
from frontinus.model.tree import Amphora, LoadBalancerTree
from frontinus.testing.amphora_bench import AmphoraBench, amphora_at, made, others_go_on, require_runs, running
from frontinus.testing.amphora_on_paper import require_terminates
from frontinus.testing.certificates import TestAuthority
from frontinus.testing.exam import Checks, NotApplicable, NotExaminable, Violation, expect, require
from frontinus.testing.exam_trees import secrets_for, spoken, terminating, with_member

_SLOWEST_INFO_S = 5.0
"""The interface says about two; more than twice that is not about."""
_PATIENCE_S = 5.0

checks: Checks[AmphoraBench] = Checks()


def _on_port(tree: LoadBalancerTree, port: int) -> LoadBalancerTree:
    return replace(tree, listeners=(replace(tree.listeners[0], protocol_port=port),))


async def _apply(driver: AmphoraDriver, amphora: Amphora, tree: LoadBalancerTree) -> str:
    """Render and apply; the action. Raises Violation when the answer is about something else."""
    rendered = driver.render(tree, amphora)
    applied = await driver.apply(amphora, tree, rendered)
    require(applied.digest == rendered.digest, f"applied {applied.digest}, rendered {rendered.digest}")
    require(applied.action in ACTIONS, f"action {applied.action!r} is none of {', '.join(ACTIONS)}")
    return applied.action


async def _raises_retry(call: Coroutine[Any, Any, object], when: str) -> None:
    try:
        await expect(Retry, call, when)
    except (Violation, TimeoutError):
        raise
    except Exception as error:  # the driver is on trial
        raise Violation(f"{when}: Retry was due, and it raised {error!r}") from error


@checks.claim("preview foretells what apply does")
async def preview_foretells_apply(bench: AmphoraBench) -> None:
    before = None
    async with running(bench, bench.ports[0]) as (driver, amphora, tree):
        more_members = with_member(tree, 10)
        another_port = _on_port(more_members, bench.ports[1])
        for each in (tree, tree, more_members, another_port, replace(another_port, listeners=())):
            rendered = driver.render(each, amphora)
            told = driver.preview(before, rendered).action
            done = (await driver.apply(amphora, each, rendered)).action
            require(told == done, f"foretold {told}, done {done}")
            before = rendered


@checks.claim("info asks the agent, also before anything was applied, and not its own memory when it is gone")
async def info_answers(bench: AmphoraBench) -> None:
    async with running(bench, bench.ports[0]) as (driver, amphora, tree):
        info = await driver.info(amphora, tree)
        require(info.agent_version, "it has no agent version")
        require(not info.running, "it is said to balance before anything was applied")
        require(info.digest is None, f"digest {info.digest} before anything was applied")
    gone = bench.factory()
    try:
        async with running(bench, bench.ports[0]) as (_driver, amphora, tree):
            await _apply(gone, amphora, tree)
            await gone.info(amphora, tree)
        await _raises_retry(gone.info(amphora, tree), "info of an amphora that is gone")
    finally:
        await gone.close()


@checks.claim("renew_identity gives a running amphora the identity of identity_digest, and disturbs nothing")
async def identity_is_renewed(bench: AmphoraBench) -> None:
    async with running(bench, bench.ports[0]) as (driver, amphora, tree), made(bench) as other:
        if not driver.identity_digest:
            await expect(Incompatible, driver.renew_identity(amphora), "renew_identity without an identity")
            raise NotApplicable("its amphorae have no identity that could be renewed")
        await driver.apply(amphora, tree, driver.render(tree, amphora))
        first, second = await driver.renew_identity(amphora), await other.renew_identity(amphora)
        for identity in (first, second):
            require(identity.digest == driver.identity_digest, f"{identity.digest} is not identity_digest")
            require(identity.renew_at < identity.expires_at, "it is due only when it is over")
        await require_runs(driver, amphora, tree)


@checks.claim("when apply returns, that is what runs")
async def apply_runs_what_was_rendered(bench: AmphoraBench) -> None:
    async with running(bench, bench.ports[0]) as (driver, amphora, tree), made(bench) as other:
        await _apply(driver, amphora, tree)
        await require_runs(driver, amphora, tree)
        await require_runs(other, amphora, tree)


@checks.claim("apply is idempotent, also by another driver: what runs already is left alone")
async def apply_repeats(bench: AmphoraBench) -> None:
    async with running(bench, bench.ports[0]) as (driver, amphora, tree), made(bench) as other:
        await _apply(driver, amphora, tree)
        for again in (driver, other):
            action = await _apply(again, amphora, tree)
            require(action == "unchanged", f"of what runs already: {action}")
        await require_runs(driver, amphora, tree)


@checks.claim("apply brings the amphora from any configuration to any other, and back")
async def apply_goes_anywhere(bench: AmphoraBench) -> None:
    async with running(bench, *bench.ports) as (driver, amphora, tree), made(bench) as other:
        fewer = replace(tree, listeners=tree.listeners[:1])
        for wanted in (fewer, with_member(tree, 10), tree, fewer, tree):
            await _apply(driver, amphora, wanted)
            await require_runs(driver, amphora, wanted)
        # A controller that knows nothing of what went before.
        await _apply(other, amphora, fewer)
        await require_runs(other, amphora, fewer)
        # And the first again, whose memory is out of date now.
        await require_runs(driver, amphora, fewer)
        await _apply(driver, amphora, tree)
        await require_runs(driver, amphora, tree)


@checks.claim("a load balancer on which nothing listens can be applied, and listeners come and go")
async def apply_without_listeners(bench: AmphoraBench) -> None:
    async with running(bench, bench.ports[0]) as (driver, amphora, tree):
        bare = replace(tree, listeners=())
        for wanted in (bare, tree, bare, tree):
            await _apply(driver, amphora, wanted)
        await require_runs(driver, amphora, tree)


@checks.claim("BindRefused with nothing changed when the kernel gives some listeners no port; the rest can be applied")
async def refused_bind_changes_nothing(bench: AmphoraBench) -> None:
    if bench.hold_port is None:
        raise NotExaminable("the bench has no `hold_port`")
    async with running(bench, *bench.ports) as (driver, amphora, tree):
        free, held = tree.listeners
        rest = tree.without({held.id})
        await driver.apply(amphora, rest, driver.render(rest, amphora))
        with bench.hold_port(bench.vip_address, held.protocol_port):
            call = driver.apply(amphora, tree, driver.render(tree, amphora))
            error = await expect(BindRefused, call, "a port that another holds")
            named = {bind.listener_id for bind in error.binds} if isinstance(error, BindRefused) else set()
            require(named == {held.id}, f"it names {named}, not {held.id}; {free.id} is free")
            await require_runs(driver, amphora, rest)
        await driver.apply(amphora, tree, driver.render(tree, amphora))
        await require_runs(driver, amphora, tree)


@checks.claim("every method may be called from many tasks at once")
async def many_tasks_at_once(bench: AmphoraBench) -> None:
    async with running(bench, *bench.ports) as (driver, amphora, tree):
        fewer = replace(tree, listeners=tree.listeners[:1])
        wanted = [fewer, tree, fewer, tree]
        await asyncio.gather(
            *(driver.apply(amphora, each, driver.render(each, amphora)) for each in wanted),
            *(driver.info(amphora, tree) for _ in range(4)),
        )
        await driver.apply(amphora, tree, driver.render(tree, amphora))
        await require_runs(driver, amphora, tree)


@checks.claim("apply brings changed files to the amphora, also by a driver that knows nothing of those before")
async def apply_carries_files(bench: AmphoraBench) -> None:
    async with running(bench, bench.ports[0]) as (driver, amphora, plain), made(bench) as other:
        require_terminates(driver)
        tree = terminating(plain)
        authority = TestAuthority()
        old, new = secrets_for(authority, tree), secrets_for(authority, tree)
        bare = replace(tree, listeners=())
        for by, secrets in ((driver, old), (driver, new), (other, old), (driver, new), (driver, new)):
            rendered = by.render(tree, amphora, secrets)
            await by.apply(amphora, tree, rendered)
            info = await by.info(amphora, tree)
            require(info.running and info.digest in (None, rendered.digest), f"{info.digest}, not {rendered.digest}")
        await driver.apply(amphora, bare, driver.render(bare, amphora))
        await driver.apply(amphora, tree, driver.render(tree, amphora, old))


@checks.claim("an interrupted apply ends at once, and is completed by the next")
async def interrupted_apply_is_completed(bench: AmphoraBench) -> None:
    async with running(bench, *bench.ports) as (driver, amphora, tree):
        fewer = replace(tree, listeners=tree.listeners[:1])
        await driver.apply(amphora, fewer, driver.render(fewer, amphora))
        for turns in (1, 3, 10):
            task = asyncio.create_task(driver.apply(amphora, tree, driver.render(tree, amphora)))
            for _ in range(turns):
                await asyncio.sleep(0)
            was_done = task.done()
            task.cancel()
            _, pending = await asyncio.wait([task], timeout=_PATIENCE_S)
            require(not pending, f"it goes on {_PATIENCE_S:g} s after it was cancelled")
            # Whoever cancels is told so, or the end of a controller waits for its slowest push.
            require(was_done or task.cancelled() or turns > 1, "it was cancelled before it began, and ended otherwise")
            await driver.apply(amphora, fewer, driver.render(fewer, amphora))
            await require_runs(driver, amphora, fewer)


@checks.claim("retire stops balancing, and may be repeated, also where nothing was ever applied")
async def retire_stops_balancing(bench: AmphoraBench) -> None:
    async with running(bench, bench.ports[0]) as (driver, amphora, tree):
        await driver.retire(amphora, tree)
        await driver.apply(amphora, tree, driver.render(tree, amphora))
        await driver.retire(amphora, tree)
        require(not (await driver.info(amphora, tree)).running, "it balances still")
        await driver.retire(amphora, tree)


@checks.claim("info, apply and retire raise Retry when the agent does not answer; info within about two seconds")
async def silence_is_retry(bench: AmphoraBench) -> None:
    clock = asyncio.get_running_loop()
    async with made(bench) as driver:
        tree = bench.tree(driver, bench.ports[0])
        amphora = amphora_at(bench.deaf_address, tree)
        began = clock.time()
        async with others_go_on("info of a silent amphora"):
            await _raises_retry(driver.info(amphora, tree), "info of a silent amphora")
        took = clock.time() - began
        require(took < _SLOWEST_INFO_S, f"info took {took:.1f} s to find out")
        async with others_go_on("apply to a silent amphora"):
            call = driver.apply(amphora, tree, driver.render(tree, amphora))
            await _raises_retry(call, "apply to a silent amphora")
        await _raises_retry(driver.retire(amphora, tree), "retire of a silent amphora")


@checks.claim("an agent that hangs is silent too: Retry, info within about two seconds, and nobody else waits for it")
async def hanging_is_retry(bench: AmphoraBench) -> None:
    if bench.hang is None:
        raise NotExaminable("the bench has no `hang`")
    clock = asyncio.get_running_loop()
    async with running(bench, bench.ports[0]) as (driver, amphora, tree):
        await _apply(driver, amphora, tree)
        with bench.hang(amphora.id):
            began = clock.time()
            async with others_go_on("info of an agent that hangs"):
                await _raises_retry(driver.info(amphora, tree), "info of an agent that hangs")
            took = clock.time() - began
            require(took < _SLOWEST_INFO_S, f"info took {took:.1f} s to find out")
        await require_runs(driver, amphora, tree)


@checks.claim("close lets go of connections and tasks, and may be repeated; the amphorae are not touched")
async def close_touches_no_amphora(bench: AmphoraBench) -> None:
    async with running(bench, bench.ports[0]) as (driver, amphora, tree):
        before = asyncio.all_tasks()
        other = bench.factory()
        await other.apply(amphora, tree, other.render(tree, amphora))
        await other.info(amphora, tree)
        await other.close()
        await other.close()
        left = asyncio.all_tasks() - before
        if left:
            await asyncio.wait(left, timeout=0.5)  # what is on its way out may end
        left = {task for task in left if not task.done()}
        for task in left:
            task.cancel()
        require(not left, f"tasks go on after close: {sorted(task.get_name() for task in left)}")
        await require_runs(driver, amphora, tree)


# Traffic


@checks.claim("what runs is what was rendered: connections to the VIP reach the members, and only the members")
async def traffic_reaches_the_members(bench: AmphoraBench) -> None:
    if not bench.reachable:
        raise NotExaminable("the bench is not `reachable`: no traffic can be sent")
    async with running(bench, *bench.ports) as (driver, amphora, plain):
        if spoken(driver.offers())[0] not in (ListenerProtocol.HTTP, ListenerProtocol.TCP):
            raise NotApplicable("it offers neither HTTP nor TCP listeners, which the exam speaks")
        async with _member(bench, b"first") as first, _member(bench, b"second") as second:
            tree = replace(plain, members=(replace(plain.members[0], protocol_port=first),))
            await _apply(driver, amphora, tree)
            for port in bench.ports:
                await _require_answer(bench, port, b"first")
            moved = replace(tree, members=(replace(tree.members[0], protocol_port=second),))
            await _apply(driver, amphora, moved)
            for port in bench.ports:
                await _require_answer(bench, port, b"second")
            fewer = replace(moved, listeners=moved.listeners[:1])
            await _apply(driver, amphora, fewer)
            await _require_answer(bench, bench.ports[0], b"second")
            await _require_answer(bench, bench.ports[1], None)
            await driver.retire(amphora, fewer)
            await _require_answer(bench, bench.ports[0], None)


@asynccontextmanager
async def _member(bench: AmphoraBench, name: bytes) -> AsyncIterator[int]:
    """A web server that answers every request with its name; its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(name), name))
            await writer.drain()
        except (OSError, EOFError):
            pass  # somebody who only looked whether the port is open
        finally:
            writer.close()

    server = await asyncio.start_server(answer, bench.member_address, 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


async def _asked(address: str, port: int) -> bytes | None:
    """The body that is answered on the VIP; None when nobody listens, or whoever does closes without an answer."""
    try:
        reader, writer = await asyncio.open_connection(address, port)
    except OSError:
        return None
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: exam.example.org\r\nConnection: close\r\n\r\n")
        await writer.drain()
        answer = await asyncio.wait_for(reader.read(), _PATIENCE_S)
    except (OSError, TimeoutError):
        return None
    finally:
        writer.close()
    return answer.partition(b"\r\n\r\n")[2] if answer else None


async def _require_answer(bench: AmphoraBench, port: int, wanted: bytes | None) -> None:
    """Three answers, one after another, as they should be; a balancer may take a moment to let go of its old self."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + _PATIENCE_S
    while True:
        answers = [await _asked(bench.vip_address, port) for _ in range(3)]
        if answers == [wanted] * 3:
            return
        require(clock() < deadline, f"on port {port} came {answers}, and not {wanted!r}")
        await asyncio.sleep(0.05)


CHECKS = checks.all()

"""Answer the API's questions: what would this change do to what the amphorae run?

Renders the tree as it is and as it would be, exactly as reconcile.py does, and has the driver tell the difference.
Changes nothing and holds no lease. Amphorae are asked for nothing but their version, and that only where two versions of a
driver are compared, since of one that is too old another takes the place. Next: store/previews.py."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Mapping
from datetime import timedelta
from functools import partial

import msgspec
import structlog
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion

from frontinus.controller.hands import Hands
from frontinus.controller.hesitation import Hesitation
from frontinus.controller.omission import carried_of
from frontinus.controller.plan import ROLES_OF_TOPOLOGY
from frontinus.controller.reconcile import fault_of, left_out_by
from frontinus.controller.secrets import Resolver
from frontinus.drivers.amphora.interface import Rendered, RenderedFile
from frontinus.model.enums import AmphoraStatus
from frontinus.model.errors import CallerError, Gone, Incompatible, Rejected, Retry
from frontinus.model.ids import AmphoraId, ControllerId, new_id
from frontinus.model.previews import Answer, FileTold, Preview, PreviewOfAmphora, Question, Rendering
from frontinus.model.tree import Amphora, Fault, LoadBalancerTree
from frontinus.store import previews
from frontinus.store.previews import Claimed

log = structlog.get_logger()

MOST_AT_ONCE = 8
"""Questions claimed in one turn; others are for other controllers, or for the next turn."""

LULL_S = 0.02
"""Pause between a wake-up and the look that it causes. Edits wake this loop as well, and a thousand of them in a second
shall not cost a thousand looks."""

FIRST_LULL, LONGEST_LULL = timedelta(milliseconds=40), timedelta(milliseconds=400)
"""And where others hear it too, who were not needed before. The API waits longer for an answer (preview_wait)."""


class Previewer:
    """One per controller. One owner: its own loop."""

    def __init__(self, owner: ControllerId, hands: Hands) -> None:
        self._owner = owner
        self._hands = hands
        self._hesitation = Hesitation(FIRST_LULL, LONGEST_LULL)

    def among(self, controllers: int) -> None:
        """So many hear the same wake-ups, this one included."""
        self._hesitation.among(controllers)

    async def run(self) -> None:
        """Answer until cancelled."""
        wakeups = self._hands.store.wakeups()
        woken = False
        while True:
            try:
                found = False
                while await self.turn():
                    found = True
                if woken or found:
                    self._hesitation.found(anything=found)
            except Exception:  # the loop protects its next turn; whoever asked is told that nobody answered
                log.exception("previews could not be answered")
            longest = self._hands.settings.poll_interval.total_seconds() * (0.75 + random.random() / 2)
            woken = await wakeups.wait(longest)
            if woken:
                await asyncio.sleep(max(LULL_S, self._hesitation.pause()))

    async def turn(self) -> bool:
        """Answer what is open; whether there was anything. What is edited wakes this loop too, so it only reads first."""
        store, cohort, now = self._hands.store, self._hands.cohort, self._hands.now()
        if not await store.read(lambda tx: previews.is_any_open(tx, cohort, now)):
            return False
        claimed = await store.transact(lambda tx: previews.claim(tx, self._owner, cohort, now, MOST_AT_ONCE))
        for each in claimed:
            await self._answer(each)
        return bool(claimed)

    async def _answer(self, claimed: Claimed[Question]) -> None:
        answer = await answer_to(claimed.question, self._hands)
        give = partial(previews.answer, question_id=claimed.id, owner=self._owner, given=answer)
        await self._hands.store.transact(give)


async def answer_to(question: Question, hands: Hands) -> Answer:
    """What would become of each amphora, and what of the wish could not be carried."""
    after = question.after
    amphorae = [
        x for x in after.amphorae if x.status not in (AmphoraStatus.PENDING_DELETE, AmphoraStatus.DELETED)
    ] or _still_to_be_made(after, hands)
    faults: list[Fault] = []
    resolver = Resolver(hands.secret)
    then = await _render(after, amphorae, faults, resolver, hands)
    if then is None:
        return Answer(faults=tuple(faults))
    if question.tells_renderings:
        return Answer(faults=tuple(faults), renderings={x: told(y) for x, y in then.items() if y is not None})
    if question.ran is not None:
        return Answer(amphorae=await _compared(after, amphorae, question.ran, then, hands), faults=tuple(faults))
    now = None if question.before is None else await _render(question.before, amphorae, [], resolver, hands)
    existing = {x.id for x in after.amphorae}
    previewed = [
        PreviewOfAmphora(
            amphora_id=x.id if x.id in existing else None,
            role=x.role,
            preview=await _preview(x, question, now, then[x.id], hands),
        )
        for x in amphorae
    ]
    return Answer(amphorae=tuple(previewed), faults=tuple(faults))


async def _compared(
    tree: LoadBalancerTree,
    amphorae: list[Amphora],
    ran: Mapping[AmphoraId, Rendering],
    then: Mapping[AmphoraId, Rendered | None],
    hands: Hands,
) -> tuple[PreviewOfAmphora, ...]:
    """What a push by this version would do to amphorae that run what another version renders."""
    driver = hands.amphora_driver

    async def one(amphora: Amphora) -> Preview:
        after, before, receipt = then[amphora.id], ran.get(amphora.id), amphora.receipt
        if receipt is not None and after is not None and receipt.digest == after.digest:
            return Preview(action="unchanged")
        if receipt is not None and (too_old := await _is_outgrown(amphora, tree, hands)):
            return Preview(action="replace", reason=too_old)
        if before is None and receipt is not None:
            return Preview(action="reload", reason="the version that served it does not run, so it cannot be compared")
        masked = None if after is None else rendered_of(told(after))
        return await asyncio.to_thread(driver.preview, None if before is None else rendered_of(before), masked)

    return tuple([PreviewOfAmphora(amphora_id=x.id, role=x.role, preview=await one(x)) for x in amphorae])


async def _is_outgrown(amphora: Amphora, tree: LoadBalancerTree, hands: Hands) -> str:
    """Why this version could not push to an amphora that serves now; empty if it can, or nothing is known."""
    driver = hands.amphora_driver
    try:
        version = (await driver.info(amphora, tree)).agent_version
    except Incompatible as error:
        return str(error)
    except (Retry, Gone):
        return ""
    try:
        serves = SpecifierSet(driver.amphora_versions).contains(version, prereleases=True)
    except InvalidVersion:
        return ""
    return "" if serves else str(Incompatible(version, driver.amphora_versions))


def told(rendered: Rendered) -> Rendering:
    """What may be written down of it: of a private file that it is another, and nothing of what is in it."""
    files = tuple(
        FileTold(
            name=x.name,
            content=hashlib.sha256(x.content).hexdigest().encode() if x.private else x.content,
            private=x.private,
        )
        for x in rendered.files
    )
    return Rendering(text=rendered.text, digest=rendered.digest, files=files)


def rendered_of(rendering: Rendering) -> Rendered:
    """For `preview`, which compares, and must not be pushed."""
    files = tuple(RenderedFile(name=x.name, content=x.content, private=x.private) for x in rendering.files)
    return Rendered(text=rendering.text, digest=rendering.digest, files=files)


async def _preview(
    amphora: Amphora,
    question: Question,
    now: dict[AmphoraId, Rendered | None] | None,
    then: Rendered | None,
    hands: Hands,
) -> Preview:
    if amphora.id in question.replaced:
        return Preview(action="replace", reason="another amphora takes its place")
    if amphora.receipt is None:
        before = None  # whatever was asked for, nothing runs there yet
    elif now is None:
        return Preview(action="reload", reason="what is asked for now cannot be rendered, so it cannot be compared")
    else:
        before = now[amphora.id]
    # In a thread: comparing two long texts takes long.
    return await asyncio.to_thread(hands.amphora_driver.preview, before, then)


def _still_to_be_made(tree: LoadBalancerTree, hands: Hands) -> list[Amphora]:
    load_balancer = tree.load_balancer
    return [
        Amphora(
            id=AmphoraId(new_id()),
            load_balancer_id=load_balancer.id,
            project_id=load_balancer.project_id,
            role=role,
            created_at=hands.now(),
        )
        for role in ROLES_OF_TOPOLOGY[load_balancer.topology]
    ]


async def _render(
    tree: LoadBalancerTree, amphorae: list[Amphora], faults: list[Fault], resolver: Resolver, hands: Hands
) -> dict[AmphoraId, Rendered | None] | None:
    """What each amphora would run, less what would be left out; None if nothing could be carried. Why is in `faults`."""
    if tree.load_balancer.delete_requested:
        return {x.id: None for x in amphorae}
    left_out: dict[str, Fault] = {}
    served = any(x.status is AmphoraStatus.ALLOCATED and x.receipt is not None for x in tree.amphorae)
    while True:
        carried = carried_of(tree, left_out)
        try:
            secrets = await resolver.resolve(carried)
            return {x.id: hands.amphora_driver.render(carried, x, secrets) for x in amphorae}
        except (Rejected, CallerError, Retry) as error:
            fault = fault_of(error, None, hands.now())
            omitted = left_out_by(error, fault, tree, left_out, served=served)
            subject_id = None if error.subject is None else error.subject.id
            shown = omitted.get(subject_id) if subject_id is not None else None
            faults.append(shown or msgspec.structs.replace(fault, left_out=bool(omitted)))
            if not omitted:
                return None
            left_out |= omitted

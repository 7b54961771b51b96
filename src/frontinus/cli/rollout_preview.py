"""What a rollout would do to each load balancer: asked of the controllers, told to a person.

Only a controller of the new version can render as it does, and only one of the old as that does. So the old one is asked
what it renders, and the new one what would become of that; both through the store, as dry runs are
(docs/design/0006-dry-runs.md). Next: controller/previewer.py, which answers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

import msgspec

from frontinus.cli.output import say
from frontinus.model.cohorts import CohortName
from frontinus.model.errors import Retry
from frontinus.model.ids import AmphoraId, LoadBalancerId, new_id
from frontinus.model.previews import Answer, Question, Rendering, strongest
from frontinus.model.tree import LoadBalancerTree
from frontinus.store import cohorts, previews, trees
from frontinus.store.engine import Store, Transaction

PATIENCE_S = 20.0
"""For one answer; controllers answer in milliseconds, unless many ask."""

AT_ONCE = 16
POLL_S = 0.02
MOST_DIFFS = 3

MEANING = {
    "unchanged": "nothing is pushed",
    "runtime": "minor: a push, without a reload",
    "reload": "minor: a push, with a reload that costs no connection",
    "start": "minor: a first push",
    "stop": "minor: a push after which nothing listens",
    "replace": "MAJOR: amphorae are replaced, one of a pair at a time",
    "refused": "REFUSED: the new version cannot carry it; the rollout would halt there",
    "unknown": "cannot be told",
}


class PlanOfLoadBalancer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What would become of one load balancer. `action` is one of MEANING."""

    load_balancer_id: LoadBalancerId
    action: str
    reason: str = ""
    diff: str = ""


async def plan_all(
    store: Store, driver: str, version: str, load_balancer_ids: Sequence[LoadBalancerId]
) -> list[PlanOfLoadBalancer]:
    """What a rollout to this version would do to these, in their order."""
    turns = asyncio.Semaphore(AT_ONCE)
    running = {x.name for x in await store.read(cohorts.all_cohorts) if x.is_served(datetime.now(UTC))}

    async def one(load_balancer_id: LoadBalancerId) -> PlanOfLoadBalancer:
        async with turns:
            return await _plan_one(store, CohortName(driver, version), running, load_balancer_id)

    return list(await asyncio.gather(*(one(x) for x in load_balancer_ids)))


def tell_plan(plans: Sequence[PlanOfLoadBalancer], meant: int) -> None:
    """Say how many there are of each sort, and show the difference for some that differ in what changes."""
    counts = Counter(x.action for x in plans)
    for action, meaning in MEANING.items():
        if counts[action]:
            say(f"  {counts[action]:>6}  {action:<10}{meaning}")
    if meant > len(plans):
        say(f"  {meant - len(plans):>6}  not looked at (--most looks at more)")
    reasons = Counter((x.action, x.reason) for x in plans if x.reason)
    for (action, reason), count in reasons.most_common(MOST_DIFFS):
        say(f"{action}, {count} of them: {reason}")
    shown: set[str] = set()
    for each in plans:
        change = "\n".join(x for x in each.diff.splitlines() if x.startswith(("+", "-")))
        if change and change not in shown and len(shown) < MOST_DIFFS:
            shown.add(change)
            say(f"\nload balancer {each.load_balancer_id}, {each.action}:\n{each.diff.rstrip()}")


async def _plan_one(
    store: Store, target: CohortName, running: set[CohortName], load_balancer_id: LoadBalancerId
) -> PlanOfLoadBalancer:
    tree, cohort = await store.read(
        lambda tx: (trees.read_tree(tx, load_balancer_id), cohorts.of(tx, load_balancer_id))
    )
    plan = partial(PlanOfLoadBalancer, load_balancer_id=load_balancer_id)
    if tree is None or tree.load_balancer.delete_requested:
        return plan(action="unchanged", reason="it is being deleted")
    try:
        ran: Mapping[AmphoraId, Rendering] = {}
        if cohort is not None and cohort in running:
            ran = (await _ask(store, cohort, Question(before=None, after=tree, tells_renderings=True), tree)).renderings
        answer = await _ask(store, target, Question(before=None, after=tree, ran=ran), tree)
    except Retry as silent:
        return plan(action="unknown", reason=silent.reason)
    if not answer.amphorae and answer.faults:
        return plan(action="refused", reason=answer.faults[0].message)
    action = strongest(x.preview.action for x in answer.amphorae)
    reason = next((x.preview.reason for x in answer.amphorae if x.preview.action == action), "")
    return plan(
        action=action, reason=reason, diff=next((x.preview.diff for x in answer.amphorae if x.preview.diff), "")
    )


async def _ask(store: Store, cohort: CohortName, question: Question, tree: LoadBalancerTree) -> Answer:
    """Raises Retry when no controller of the cohort answers in time."""
    question_id, now = new_id(), datetime.now(UTC)
    load_balancer = tree.load_balancer

    def ask(tx: Transaction) -> None:
        previews.ask(tx, question_id, load_balancer.provider, cohort, load_balancer.id, question, now)

    await store.transact(ask)
    deadline = time.monotonic() + PATIENCE_S
    try:
        while time.monotonic() < deadline:
            answer = await store.read(partial(previews.answer_to, question_id=question_id))
            if answer is not None:
                return answer
            await asyncio.sleep(POLL_S)
    finally:
        await store.transact(partial(previews.forget, question_id=question_id))
    raise Retry(f"no controller of {cohort} answered within {PATIENCE_S:g} s", after=1.0)

"""Decide what a load balancer needs next.

Given what was asked and what was last seen, return the steps that remain; no steps means done. Never touches drivers,
the store or a clock: callers pass `now` and fresh ids. Whoever carries out the first step and plans again gets to the
same end, wherever he was stopped: the invariant is that every external thing has a row before it exists, and a row
until it does not. Next: reconcile.py."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from frontinus.controller.plugging import Plugging
from frontinus.controller.restraint import Hold
from frontinus.controller.settings import ControllerSettings
from frontinus.controller.steps import (
    ApplyConfiguration,
    AwaitAgent,
    BeginReplacement,
    BuildAmphora,
    CondemnAmphora,
    DestroyAmphora,
    DismissSuspicion,
    ForgetLoadBalancer,
    IntroducePeer,
    LookAgain,
    PlugAmphora,
    RecordAmphora,
    RecordSettled,
    Step,
    UnplugAmphora,
    WishReplacement,
)
from frontinus.drivers.compute.interface import Place, PlaceState
from frontinus.model.enums import AmphoraRole, AmphoraStatus, ProvisioningStatus, Topology
from frontinus.model.ids import AmphoraId
from frontinus.model.tree import Amphora, LoadBalancerTree

ROLES_OF_TOPOLOGY: dict[Topology, tuple[AmphoraRole, ...]] = {
    Topology.SINGLE: (AmphoraRole.STANDALONE,),
    Topology.ACTIVE_STANDBY: (AmphoraRole.MASTER, AmphoraRole.BACKUP),
}


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """What two witnesses say of an amphora. None: that witness was not asked, because there was no reason to."""

    place: Place | None = None
    answering: bool | None = None


class Verdict(StrEnum):
    SERVING = "serving"
    STARTING = "starting"
    WAIT = "wait"
    BOOTING = "booting"
    STOPPED_ON_PURPOSE = "stopped_on_purpose"
    ALIVE_AFTER_ALL = "alive_after_all"
    REVIVE = "revive"
    HELD = "held"
    UNWANTED = "unwanted"
    DEAD = "dead"


LOOK_AGAIN_AFTER: dict[Verdict, timedelta] = {
    Verdict.WAIT: timedelta(milliseconds=500),
    # Its first heartbeat says when; compute may be far away.
    Verdict.BOOTING: timedelta(seconds=5),
    # Whoever stopped it starts it again in his own time; its heartbeats say when.
    Verdict.STOPPED_ON_PURPOSE: timedelta(seconds=10),
    # A mark is taken off, a brake releases, or another replacement ends.
    Verdict.HELD: timedelta(seconds=2),
}
"""Amphorae with these verdicts are neither pushed to nor replaced, and nothing is settled without them."""


NO_HOLDS: Mapping[AmphoraId, Hold] = {}


def needs_look(tree: LoadBalancerTree, amphora: Amphora) -> bool:
    """Whether compute and agent are asked about an amphora before planning. An ordinary edit of a load balancer whose
    amphorae beat asks nobody: its receipts say what runs."""
    if tree.load_balancer.delete_requested or amphora.status is AmphoraStatus.PENDING_DELETE:
        return False  # it is destroyed whatever they would say
    if amphora.replacement_requested_at is not None:
        return False
    return amphora.suspected_at is not None or amphora.status is not AmphoraStatus.ALLOCATED


def verdict(
    amphora: Amphora,
    sighting: Sighting,
    now: datetime,
    settings: ControllerSettings,
    *,
    grace: datetime | None = None,
    hold: Hold | None = None,
    boot_timeout: timedelta = timedelta(0),
) -> Verdict:
    """Weigh the three witnesses: heartbeats (`suspected_at`), the agent, and compute's word. What lasts too long counts from
    `grace` at the earliest (restraint.Grace); what has a `hold` is neither replaced nor started again. What somebody started
    again after a stop has `boot_timeout`."""
    weighed = _weigh(amphora, sighting, now, settings, grace, boot_timeout)
    doomed = weighed is Verdict.REVIVE or (weighed is Verdict.DEAD and amphora.status is AmphoraStatus.ALLOCATED)
    return Verdict.HELD if doomed and hold is not None else weighed


def _weigh(
    amphora: Amphora,
    sighting: Sighting,
    now: datetime,
    settings: ControllerSettings,
    grace: datetime | None,
    boot_timeout: timedelta,
) -> Verdict:
    place = sighting.place
    if amphora.status in (AmphoraStatus.ERROR, AmphoraStatus.PENDING_DELETE):
        return Verdict.DEAD
    if amphora.replacement_requested_at is not None:
        return Verdict.UNWANTED
    if amphora.status is not AmphoraStatus.ALLOCATED:
        return Verdict.STARTING
    if amphora.suspected_at is None or place is None:
        return Verdict.SERVING
    if place.state is PlaceState.STOPPED_ON_PURPOSE:
        return Verdict.STOPPED_ON_PURPOSE  # a planned stop is not a failure
    if sighting.answering:
        return Verdict.ALIVE_AFTER_ALL
    match place.state:
        case PlaceState.ABSENT:
            return Verdict.DEAD
        case PlaceState.STOPPED:
            revived_lately = amphora.revived_at is not None and now - amphora.revived_at < settings.revive_window
            # Only a place that still balances is worth reviving: its traffic goes on meanwhile.
            return Verdict.REVIVE if place.balancing and not revived_lately else Verdict.DEAD
        case PlaceState.RUNNING | PlaceState.BUILDING:
            if _is_booting(amphora, place, now, boot_timeout):
                return Verdict.BOOTING
            since = _counted_from(amphora.suspected_at, now, grace)
            return Verdict.DEAD if now - since > settings.hang_deadline else Verdict.WAIT


def _is_booting(amphora: Amphora, place: Place, now: datetime, boot_timeout: timedelta) -> bool:
    """Whether it was started lately and was not heard since. A time that is still to come is no time to wait for."""
    started_at = place.started_at
    if started_at is None or not now - boot_timeout < started_at <= now:
        return False
    return amphora.seen_at is None or amphora.seen_at < started_at


def _counted_from(suspected_at: datetime, now: datetime, grace: datetime | None) -> datetime:
    """A time that is still to come was written by a clock that has been set back since."""
    if suspected_at > now:
        return now if grace is None else grace
    return suspected_at if grace is None else max(suspected_at, grace)


def plan(
    tree: LoadBalancerTree,
    sightings: Mapping[AmphoraId, Sighting],
    digests: Mapping[AmphoraId, str],
    now: datetime,
    settings: ControllerSettings,
    fresh_ids: Iterator[AmphoraId],
    *,
    partial: bool = False,
    recorded: bool = False,
    plugging: Mapping[AmphoraId, Plugging] | None = None,
    holds: Mapping[AmphoraId, Hold] = NO_HOLDS,
    grace: datetime | None = None,
    plugged: Collection[AmphoraId] = (),
    outgrown: Collection[AmphoraId] = (),
    unspeaking: Collection[AmphoraId] = (),
    boot_timeout: timedelta = timedelta(0),
) -> tuple[Step, ...]:
    """The steps that remain. `digests` says what each amphora should run; `partial` that some listeners are left out of
    it, so that the result must be recorded even if the generation is the same, and `recorded` that this was done just now; `plugging` what its ports lack, None where
    there are no ports. `holds` and `grace` as in `verdict`; `plugged` are those that were plugged already since this work
    began, `outgrown` those of which it was found that they are too old for what is wanted: they are pushed to no more,
    and `unspeaking` those of them that cannot even be told of a newcomer, which does without.
    `boot_timeout` as in `verdict`."""
    if tree.load_balancer.delete_requested:
        return _plan_deletion(tree)
    verdicts = {
        x.id: verdict(
            x,
            sightings.get(x.id, Sighting()),
            now,
            settings,
            grace=grace,
            hold=holds.get(x.id),
            boot_timeout=boot_timeout,
        )
        for x in tree.amphorae
    }
    return _plan_presence(
        tree,
        verdicts,
        sightings,
        digests,
        fresh_ids,
        partial=partial,
        recorded=recorded and tree.load_balancer.applied_generation == tree.load_balancer.generation,
        plugging=plugging,
        holds=holds,
        plugged=plugged,
        outgrown=outgrown,
        unspeaking=unspeaking,
    )


def carried_before_next_push(steps: tuple[Step, ...], pushed: Mapping[AmphoraId, int]) -> int | None:
    """The generation that every amphora carries, when the next step would push again to one of those that were `pushed`
    to (to which generation) since this work began: edits came meanwhile. None when there is nothing of the kind.

    It is recorded first, so that a tenant who never stops editing sees his edits settle. Amphorae that were not pushed
    to needed no push; pushes go to those first that have waited longest, so the others have had theirs."""
    if not steps or not isinstance(steps[0], ApplyConfiguration) or steps[0].amphora_id not in pushed:
        return None
    if any(isinstance(step, LookAgain) for step in steps):
        return None  # nothing is settled without the amphora that is waited for
    return min(pushed.values())


def closing_generation(steps: tuple[Step, ...], tree: LoadBalancerTree) -> int | None:
    """The generation that is settled by the first of these steps, when nothing is left to do after it; else None."""
    if any(x.replacement_requested_at is not None for x in tree.amphorae):
        return None  # its turn comes when what is settled now serves
    match steps:
        case (RecordSettled(generation),) | (ApplyConfiguration(), RecordSettled(generation)):
            return generation
        case _:
            return None


def _plan_deletion(tree: LoadBalancerTree) -> tuple[Step, ...]:
    steps: list[Step] = []
    for amphora in tree.amphorae:
        steps += _removal(amphora)
    return (*steps, ForgetLoadBalancer())


def _plan_presence(
    tree: LoadBalancerTree,
    verdicts: Mapping[AmphoraId, Verdict],
    sightings: Mapping[AmphoraId, Sighting],
    digests: Mapping[AmphoraId, str],
    fresh_ids: Iterator[AmphoraId],
    *,
    partial: bool,
    recorded: bool,
    plugging: Mapping[AmphoraId, Plugging] | None,
    holds: Mapping[AmphoraId, Hold],
    plugged: Collection[AmphoraId],
    outgrown: Collection[AmphoraId],
    unspeaking: Collection[AmphoraId],
) -> tuple[Step, ...]:
    load_balancer = tree.load_balancer
    removals: list[Step] = []
    leftovers: list[Step] = []
    arrivals: list[Step] = []
    dismissals: list[Step] = []
    plugs: list[Step] = []
    pushes: list[ApplyConfiguration | IntroducePeer] = []
    wishes: list[WishReplacement] = []
    unplugs: list[Step] = []
    waits: list[LookAgain] = []
    free_roles = list(ROLES_OF_TOPOLOGY[load_balancer.topology])
    replacing: list[bool] = []  # of each amphora that is torn down although it served, whether that is counted
    leaving = _next_to_leave(tree, verdicts)
    uninformed = _uninformed(tree)
    roles = {x.id: x.role for x in tree.amphorae}
    for amphora in tree.amphorae:
        judged = verdicts[amphora.id]
        if judged is Verdict.DEAD or amphora.id == leaving or amphora.role not in free_roles:
            counted = amphora.status is AmphoraStatus.ALLOCATED and judged is Verdict.DEAD
            if amphora.status is AmphoraStatus.ALLOCATED:
                replacing.append(counted)
            is_left = plugging is not None and is_leftover(amphora)
            (leftovers if is_left else removals).extend(_removal(amphora, counted=counted))
            continue
        free_roles.remove(amphora.role)
        match judged:
            case Verdict.STARTING:
                arrivals += _arrival(amphora, sightings.get(amphora.id, Sighting()))
            case Verdict.REVIVE:
                arrivals += [BuildAmphora(amphora.id, revive=True), AwaitAgent(amphora.id)]
                pushes.append(ApplyConfiguration(amphora.id))
            case Verdict.ALIVE_AFTER_ALL:
                dismissals.append(DismissSuspicion(amphora.id))
            case Verdict.WAIT | Verdict.BOOTING:
                waits.append(LookAgain(LOOK_AGAIN_AFTER[judged]))
            case Verdict.STOPPED_ON_PURPOSE | Verdict.HELD:
                waits.append(LookAgain(LOOK_AGAIN_AFTER[judged], holds.get(amphora.id) or _stopped(amphora)))
            case Verdict.SERVING | Verdict.UNWANTED:
                pass
        # Once it carries nothing, as after a revival, it may be another agent: it is tried, or honestly at fault.
        if amphora.id in outgrown and amphora.receipt is not None:
            if amphora.id in uninformed and amphora.id not in unspeaking and judged not in LOOK_AGAIN_AFTER:
                pushes.append(IntroducePeer(amphora.id))
            if judged is Verdict.SERVING:
                wishes.append(WishReplacement(amphora.id))
        elif judged not in LOOK_AGAIN_AFTER and (judged is Verdict.STARTING or not _runs(amphora, digests[amphora.id])):
            pushes.append(ApplyConfiguration(amphora.id))
        if plugging is not None and judged not in LOOK_AGAIN_AFTER:
            if _lacks_ports(amphora, plugging[amphora.id], sightings.get(amphora.id, Sighting()), plugged):
                plugs.append(PlugAmphora(amphora.id))
            if plugging[amphora.id].spare:
                unplugs.append(UnplugAmphora(amphora.id))
    for role in free_roles:
        amphora_id = next(fresh_ids)
        arrivals += [
            RecordAmphora(amphora_id, role),
            BuildAmphora(amphora_id),
            AwaitAgent(amphora_id),
        ]
        if plugging is not None:
            plugs.append(PlugAmphora(amphora_id))
        pushes.append(ApplyConfiguration(amphora_id))
    arrivals.sort(key=lambda x: isinstance(x, AwaitAgent))  # while one of a pair boots, the other is built
    pushes = _in_order(pushes, tree, uninformed)
    # Whether the others are too old as well is known by then, and of several the backup goes first.
    wishes.sort(key=lambda x: roles[x.amphora_id] is not AmphoraRole.BACKUP)
    # A generation that is under way already ends in a receipt of its own.
    begins = replacing and load_balancer.applied_generation == load_balancer.generation
    # Suspicion is dismissed after plugging: only who is suspected is asked what it is attached to.
    # The dead go before their replacement comes: whatever is left of them may still hold the address. Not so who has no
    # port any more: nobody who is served waits for those.
    beginning = [BeginReplacement(any(replacing))] if begins else []
    steps = [*beginning, *removals, *arrivals, *plugs, *dismissals, *pushes, *wishes, *unplugs]
    if waits:
        return (*steps, LookAgain(min(x.after for x in waits), next((x.because for x in waits if x.because), None)))
    # That one is left for later is told by a fault, which lasts until it is gone.
    is_news = partial or not _settled(tree, whatever_fault=bool(leftovers))
    if steps or (is_news and not recorded):
        steps.append(RecordSettled(load_balancer.generation))
    return (*steps, *leftovers)


def newest_arrival(tree: LoadBalancerTree) -> datetime | None:
    """When an amphora that is new to a pair, and was never pushed to, changed last; None without one."""
    there = (x.updated_at for x in tree.amphorae if x.receipt is None and x.updated_at is not None)
    return max(there, default=None)


def _uninformed(tree: LoadBalancerTree) -> frozenset[AmphoraId]:
    """Who serves and was pushed to before another was there: it must speak to the new one before that one listens, or else
    both would take the addresses."""
    arrived = newest_arrival(tree)
    return frozenset(
        x.id
        for x in tree.amphorae
        if x.receipt is not None and x.status is AmphoraStatus.ALLOCATED
        if arrived is not None and x.receipt.applied_at < arrived
    )


def _in_order(
    pushes: list[ApplyConfiguration | IntroducePeer], tree: LoadBalancerTree, uninformed: Collection[AmphoraId]
) -> list[ApplyConfiguration | IntroducePeer]:
    """Who has the oldest configuration comes first: under edits without end each amphora of a pair gets its turn. Before an
    amphora that is new to a pair comes the one that serves, and does not know of it yet."""
    carries = {x.id: -1 if x.receipt is None else x.receipt.generation for x in tree.amphorae}

    def turn(push: ApplyConfiguration | IntroducePeer) -> tuple[bool, int]:
        return push.amphora_id not in uninformed, carries.get(push.amphora_id, -1)

    return sorted(dict.fromkeys(pushes), key=turn)


def _next_to_leave(tree: LoadBalancerTree, verdicts: Mapping[AmphoraId, Verdict]) -> AmphoraId | None:
    """Which unwanted amphora goes now: one at a time, the backup of a pair before its master, and one that serves only while
    all the other roles are served."""
    roles = set(ROLES_OF_TOPOLOGY[tree.load_balancer.topology])
    serving = {
        x.id: x.role
        for x in tree.amphorae
        if x.status is AmphoraStatus.ALLOCATED and verdicts[x.id] in (Verdict.SERVING, Verdict.UNWANTED)
    }
    for amphora in sorted(tree.amphorae, key=lambda x: x.role is not AmphoraRole.BACKUP):
        if verdicts[amphora.id] is not Verdict.UNWANTED:
            continue
        others = {role for amphora_id, role in serving.items() if amphora_id != amphora.id}
        if amphora.id not in serving or roles - {amphora.role} <= others:
            return amphora.id
    return None


def _runs(amphora: Amphora, digest: str) -> bool:
    """Whether its receipt says that it runs this configuration, and is younger than the last wish to push it again."""
    receipt = amphora.receipt
    return receipt is not None and receipt.digest == digest and not amphora.is_push_wished


def _lacks_ports(amphora: Amphora, plugging: Plugging, sighting: Sighting, plugged: Collection[AmphoraId]) -> bool:
    """Whether it is to be plugged: by its row, by what compute sees of it, or because its agent may have lost what it was
    told, which is when somebody asks for its configuration to be pushed again: once before that push."""
    attached = None if sighting.place is None else sighting.place.attached
    is_wished = amphora.is_push_wished and amphora.id not in plugged
    return (
        plugging.lacks or is_wished or (attached is not None and not attached.issuperset(x.id for x in amphora.ports))
    )


def _settled(tree: LoadBalancerTree, *, whatever_fault: bool) -> bool:
    load_balancer = tree.load_balancer
    return (
        load_balancer.applied_generation == load_balancer.generation
        and load_balancer.provisioning_status is ProvisioningStatus.ACTIVE
        and (whatever_fault or load_balancer.fault is None)
        and all(child.provisioning_status is ProvisioningStatus.ACTIVE for child in tree.children())
    )


def _arrival(amphora: Amphora, sighting: Sighting) -> list[Step]:
    """What brings an amphora that is recorded to where configurations can be pushed. Building is safe to repeat, so a
    place that may or may not have been made, or that died while it started, is simply built."""
    unbuilt = sighting.place is not None and sighting.place.state in (PlaceState.ABSENT, PlaceState.STOPPED)
    if amphora.status is AmphoraStatus.PENDING_CREATE or unbuilt:
        return [BuildAmphora(amphora.id), AwaitAgent(amphora.id)]
    return [AwaitAgent(amphora.id)] if amphora.status is AmphoraStatus.BOOTING else []


def _removal(amphora: Amphora, *, counted: bool = False) -> list[Step]:
    if amphora.status is AmphoraStatus.PENDING_DELETE:
        return [DestroyAmphora(amphora.id)]
    return [CondemnAmphora(amphora.id, counted), DestroyAmphora(amphora.id)]


def is_leftover(amphora: Amphora) -> bool:
    """Whether it is to go and has no ports any more, or never had any: where amphorae hang on networks by those alone."""
    return amphora.status is AmphoraStatus.PENDING_DELETE and not amphora.ports


def _stopped(amphora: Amphora) -> Hold:
    return Hold(
        code="amphora-stopped",
        message=f"amphora {amphora.id} was stopped on purpose: start it again, or ask for a failover",
    )

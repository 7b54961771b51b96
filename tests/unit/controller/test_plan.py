"""What the controller decides, as tables: given what is asked and what was seen, these steps remain."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import timedelta

import pytest
from msgspec.structs import replace

from frontinus.controller.plan import (
    Sighting,
    Verdict,
    carried_before_next_push,
    closing_generation,
    needs_look,
    plan,
    verdict,
)
from frontinus.controller.plugging import Plugging
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
from frontinus.model.enums import AmphoraRole, AmphoraStatus, Topology
from frontinus.model.ids import AmphoraId, NetworkId, PortId
from frontinus.model.ports import Port, PortPurpose
from frontinus.model.tree import Amphora, LoadBalancerTree, Receipt

from tests.unit.controller.trees import NEW, NOW, OLD, OTHER, RECEIPT, WANTED, amphora, load_balancer

pytestmark = pytest.mark.unit

SETTINGS = ControllerSettings()


PORT = Port(
    id=PortId("port"),
    amphora_id=OLD,
    purpose=PortPurpose.VIP,
    network_id=NetworkId("n"),
    mac="fa:16:3e:00:00:01",
    mtu=1500,
    addresses=(),
    attachment="neutron",
)


def ids() -> Iterator[AmphoraId]:
    yield NEW
    yield from (AmphoraId(f"new-{n}") for n in range(2, 9))


def steps(
    tree: LoadBalancerTree,
    sighting: Sighting | None = None,
    *,
    digest: str = WANTED,
    partial: bool = False,
    outgrown: Collection[AmphoraId] = (),
) -> tuple[Step, ...]:
    sightings = {} if sighting is None else {OLD: sighting}
    digests = {x.id: digest for x in tree.amphorae}
    return plan(tree, sightings, digests, NOW, SETTINGS, ids(), partial=partial, outgrown=outgrown)


def seen(
    state: PlaceState, *, answering: bool = False, balancing: bool | None = None, started: timedelta | None = None
) -> Sighting:
    """`started`: so long ago it was started again."""
    started_at = None if started is None else NOW - started
    place = Place(amphora_id=OLD, state=state, balancing=balancing, started_at=started_at)
    return Sighting(place=place, answering=answering)


SUSPECTED = NOW - timedelta(seconds=1)
LONG_SUSPECTED = NOW - timedelta(minutes=1)


@pytest.mark.parametrize(
    "changes,sighting,expected",
    [
        pytest.param({}, Sighting(), Verdict.SERVING, id="nobody doubts it"),
        pytest.param({"status": AmphoraStatus.ERROR}, Sighting(), Verdict.DEAD, id="given up before"),
        pytest.param({"replacement_requested_at": NOW}, Sighting(), Verdict.UNWANTED, id="somebody asked for another"),
        pytest.param({"status": AmphoraStatus.BOOTING}, seen(PlaceState.RUNNING), Verdict.STARTING, id="starting"),
        pytest.param(
            {"suspected_at": SUSPECTED},
            seen(PlaceState.RUNNING, answering=True),
            Verdict.ALIVE_AFTER_ALL,
            id="silent but answering",
        ),
        pytest.param({"suspected_at": SUSPECTED}, seen(PlaceState.ABSENT), Verdict.DEAD, id="its place is gone"),
        pytest.param(
            {"suspected_at": SUSPECTED},
            seen(PlaceState.STOPPED, balancing=True),
            Verdict.REVIVE,
            id="only the agent died: traffic goes on, so start the agent again",
        ),
        pytest.param(
            {"suspected_at": SUSPECTED, "revived_at": NOW - timedelta(seconds=9)},
            seen(PlaceState.STOPPED, balancing=True),
            Verdict.DEAD,
            id="the agent died again soon after it was revived",
        ),
        pytest.param(
            {"suspected_at": SUSPECTED}, seen(PlaceState.STOPPED, balancing=False), Verdict.DEAD, id="all of it died"
        ),
        pytest.param(
            {"suspected_at": LONG_SUSPECTED},
            seen(PlaceState.STOPPED_ON_PURPOSE),
            Verdict.STOPPED_ON_PURPOSE,
            id="a planned stop is not a failure, however long",
        ),
        pytest.param(
            {"suspected_at": SUSPECTED}, seen(PlaceState.RUNNING), Verdict.WAIT, id="runs, does not answer yet"
        ),
        pytest.param({"suspected_at": LONG_SUSPECTED}, seen(PlaceState.RUNNING), Verdict.DEAD, id="hangs for long"),
        pytest.param(
            {"suspected_at": LONG_SUSPECTED, "seen_at": LONG_SUSPECTED},
            seen(PlaceState.RUNNING, started=timedelta(seconds=30)),
            Verdict.BOOTING,
            id="somebody started it again: it boots, for longer than one may hang",
        ),
        pytest.param(
            {"suspected_at": LONG_SUSPECTED, "seen_at": LONG_SUSPECTED},
            seen(PlaceState.BUILDING, started=timedelta(0)),
            Verdict.BOOTING,
            id="somebody reboots it",
        ),
        pytest.param(
            {"suspected_at": LONG_SUSPECTED, "seen_at": NOW - timedelta(hours=1)},
            seen(PlaceState.RUNNING, started=timedelta(minutes=2)),
            Verdict.DEAD,
            id="was started again, and has not come up",
        ),
        pytest.param(
            {"suspected_at": LONG_SUSPECTED, "seen_at": LONG_SUSPECTED},
            seen(PlaceState.RUNNING, started=timedelta(seconds=70)),
            Verdict.DEAD,
            id="was started again, was heard, and hangs",
        ),
        pytest.param(
            {"suspected_at": LONG_SUSPECTED, "seen_at": LONG_SUSPECTED},
            seen(PlaceState.RUNNING, started=-timedelta(hours=1)),
            Verdict.DEAD,
            id="compute's clock is ahead: nobody waits for it",
        ),
    ],
)
def test_verdict_weighs_three_witnesses(changes: dict[str, object], sighting: Sighting, expected: Verdict) -> None:
    assert verdict(amphora(**changes), sighting, NOW, SETTINGS, boot_timeout=timedelta(minutes=2)) is expected


SETTLE = RecordSettled(2)


@pytest.mark.parametrize(
    "tree,sighting,digest,expected",
    [
        pytest.param(
            LoadBalancerTree(load_balancer=load_balancer(), amphorae=(amphora(),)),
            None,
            WANTED,
            (),
            id="settled: nothing",
        ),
        pytest.param(
            LoadBalancerTree(load_balancer=load_balancer()),
            None,
            WANTED,
            (
                RecordAmphora(NEW, AmphoraRole.STANDALONE),
                BuildAmphora(NEW),
                AwaitAgent(NEW),
                ApplyConfiguration(NEW),
                SETTLE,
            ),
            id="new: recorded before it is built",
        ),
        pytest.param(
            LoadBalancerTree(load_balancer=load_balancer(), amphorae=(amphora(),)),
            None,
            "another digest",
            (ApplyConfiguration(OLD), SETTLE),
            id="an edit: one push",
        ),
        pytest.param(
            LoadBalancerTree(load_balancer=load_balancer(applied_generation=1), amphorae=(amphora(),)),
            None,
            WANTED,
            (SETTLE,),
            id="an edit that changes nothing on the amphora is settled without a push",
        ),
        pytest.param(
            LoadBalancerTree(
                load_balancer=load_balancer(), amphorae=(amphora(status=AmphoraStatus.BOOTING, receipt=None),)
            ),
            seen(PlaceState.ABSENT),
            WANTED,
            (BuildAmphora(OLD), AwaitAgent(OLD), ApplyConfiguration(OLD), SETTLE),
            id="it vanished while it started: built again under its name",
        ),
        pytest.param(
            LoadBalancerTree(load_balancer=load_balancer(), amphorae=(amphora(suspected_at=SUSPECTED),)),
            seen(PlaceState.STOPPED, balancing=False),
            WANTED,
            (
                BeginReplacement(counted=True),
                CondemnAmphora(OLD, counted=True),
                DestroyAmphora(OLD),
                RecordAmphora(NEW, AmphoraRole.STANDALONE),
                BuildAmphora(NEW),
                AwaitAgent(NEW),
                ApplyConfiguration(NEW),
                SETTLE,
            ),
            id="dead: what is left of it goes before its replacement comes",
        ),
        pytest.param(
            LoadBalancerTree(load_balancer=load_balancer(), amphorae=(amphora(status=AmphoraStatus.PENDING_DELETE),)),
            None,
            WANTED,
            (
                DestroyAmphora(OLD),
                RecordAmphora(NEW, AmphoraRole.STANDALONE),
                BuildAmphora(NEW),
                AwaitAgent(NEW),
                ApplyConfiguration(NEW),
                SETTLE,
            ),
            id="the replacement was interrupted after the verdict: it goes on",
        ),
        pytest.param(
            LoadBalancerTree(load_balancer=load_balancer(), amphorae=(amphora(suspected_at=SUSPECTED),)),
            seen(PlaceState.RUNNING, answering=True),
            WANTED,
            (DismissSuspicion(OLD), SETTLE),
            id="alive after all",
        ),
        pytest.param(
            LoadBalancerTree(load_balancer=load_balancer(), amphorae=(amphora(suspected_at=SUSPECTED),)),
            seen(PlaceState.RUNNING),
            "another digest",
            (LookAgain(timedelta(milliseconds=500)),),
            id="not known yet: nothing is pushed to it and nothing is settled",
        ),
        pytest.param(
            LoadBalancerTree(load_balancer=load_balancer(delete_requested=True), amphorae=(amphora(),)),
            None,
            WANTED,
            (CondemnAmphora(OLD), DestroyAmphora(OLD), ForgetLoadBalancer()),
            id="deletion: the amphora goes before its address is given back",
        ),
        pytest.param(
            LoadBalancerTree(
                load_balancer=load_balancer(applied_generation=1), amphorae=(amphora(replacement_requested_at=NOW),)
            ),
            None,
            WANTED,
            (
                CondemnAmphora(OLD),
                DestroyAmphora(OLD),
                RecordAmphora(NEW, AmphoraRole.STANDALONE),
                BuildAmphora(NEW),
                AwaitAgent(NEW),
                ApplyConfiguration(NEW),
                SETTLE,
            ),
            id="its replacement was asked for, which moved the generation already",
        ),
        pytest.param(
            LoadBalancerTree(
                load_balancer=load_balancer(), amphorae=(amphora(push_requested_at=NOW + timedelta(seconds=1)),)
            ),
            None,
            WANTED,
            (ApplyConfiguration(OLD), SETTLE),
            id="a push was asked for: its receipt is older than the wish",
        ),
        pytest.param(
            LoadBalancerTree(load_balancer=load_balancer(), amphorae=(amphora(push_requested_at=NOW),)),
            None,
            WANTED,
            (),
            id="the push that was asked for has been made",
        ),
        pytest.param(
            LoadBalancerTree(
                load_balancer=load_balancer(topology=Topology.ACTIVE_STANDBY),
                amphorae=(amphora(role=AmphoraRole.MASTER),),
            ),
            None,
            WANTED,
            (
                RecordAmphora(NEW, AmphoraRole.BACKUP),
                BuildAmphora(NEW),
                AwaitAgent(NEW),
                ApplyConfiguration(NEW),
                SETTLE,
            ),
            id="a pair with one missing gets the missing role",
        ),
    ],
)
def test_plan(tree: LoadBalancerTree, sighting: Sighting | None, digest: str, expected: tuple[Step, ...]) -> None:
    assert steps(tree, sighting, digest=digest) == expected


def a_pair(first: dict[str, object], second: dict[str, object]) -> LoadBalancerTree:
    return LoadBalancerTree(
        load_balancer=load_balancer(topology=Topology.ACTIVE_STANDBY, applied_generation=1),
        amphorae=(
            amphora(role=AmphoraRole.MASTER, **first),
            amphora(id=OTHER, role=AmphoraRole.BACKUP, **second),
        ),
    )


UNWANTED: dict[str, object] = {"replacement_requested_at": NOW}


def test_of_a_pair_one_is_replaced_after_the_other() -> None:
    both = steps(a_pair(UNWANTED, UNWANTED))
    assert both[:3] == (CondemnAmphora(OTHER), DestroyAmphora(OTHER), RecordAmphora(NEW, AmphoraRole.BACKUP))
    starting: dict[str, object] = {"status": AmphoraStatus.BOOTING, "receipt": None}
    assert CondemnAmphora(OLD) not in (*both, *steps(a_pair(UNWANTED, starting), Sighting()))
    assert steps(a_pair(UNWANTED, {}))[0] == CondemnAmphora(OLD), "the backup's replacement serves"


def pushed_first(first: dict[str, object], second: dict[str, object]) -> list[AmphoraId]:
    planned = steps(a_pair(first, second), digest="another digest")
    return [step.amphora_id for step in planned if isinstance(step, ApplyConfiguration)]


def test_the_survivor_of_a_pair_speaks_to_the_newcomer_before_that_one_listens() -> None:
    new: dict[str, object] = {"status": AmphoraStatus.READY, "receipt": None, "updated_at": NOW + timedelta(seconds=1)}
    assert pushed_first({}, new) == [OLD, OTHER]
    told = replace(RECEIPT, applied_at=NOW + timedelta(seconds=2))
    assert pushed_first({"receipt": told}, new) == [OTHER, OLD], "edits go on: the new one gets its turn"
    assert pushed_first(new, new | {"status": AmphoraStatus.BOOTING}) == [OLD, OTHER]


READY: dict[str, object] = {
    "status": AmphoraStatus.READY,
    "receipt": None,
    "updated_at": NOW + timedelta(seconds=1),
}
INTRODUCED: dict[str, object] = {"receipt": replace(RECEIPT, digest="old", applied_at=NOW + timedelta(seconds=2))}
STALE: dict[str, object] = {"receipt": replace(RECEIPT, digest="old")}


@pytest.mark.parametrize(
    "master, backup, outgrown, expected",
    [
        pytest.param(
            STALE,
            STALE,
            {OLD},
            (ApplyConfiguration(OTHER), WishReplacement(OLD)),
            id="the other may be too old as well",
        ),
        pytest.param(
            STALE,
            STALE,
            {OLD, OTHER},
            (WishReplacement(OTHER), WishReplacement(OLD)),
            id="both are: the backup's replacement is written first, so that it goes first whoever dies",
        ),
        pytest.param(STALE, {}, {OLD}, (WishReplacement(OLD),), id="the backup can take it, and has"),
        pytest.param(
            {},
            {"status": AmphoraStatus.READY, "receipt": None},
            {OTHER},
            (ApplyConfiguration(OTHER),),
            id="what was revived since carries nothing, and may be another agent: it is tried",
        ),
        pytest.param(
            STALE,
            READY,
            {OLD},
            (IntroducePeer(OLD), ApplyConfiguration(OTHER), WishReplacement(OLD)),
            id="a newcomer listens when the one that serves knows it, which takes no push",
        ),
        pytest.param(
            INTRODUCED, READY, {OLD}, (ApplyConfiguration(OTHER), WishReplacement(OLD)), id="it knows it already"
        ),
        pytest.param(
            STALE | UNWANTED,
            READY,
            {OLD},
            (IntroducePeer(OLD), ApplyConfiguration(OTHER)),
            id="nor does it take one when it is to be replaced anyhow",
        ),
        pytest.param(
            STALE | UNWANTED,
            READY,
            (),
            (ApplyConfiguration(OLD), ApplyConfiguration(OTHER)),
            id="one that is to be replaced and can take pushes is pushed to",
        ),
        pytest.param(
            READY,
            STALE,
            {OTHER},
            (IntroducePeer(OTHER), ApplyConfiguration(OLD), WishReplacement(OTHER)),
            id="and so where it is the backup that is left",
        ),
    ],
)
def test_what_is_too_old_is_pushed_to_no_more(
    master: dict[str, object], backup: dict[str, object], outgrown: Collection[AmphoraId], expected: tuple[Step, ...]
) -> None:
    planned = steps(a_pair(master, backup), Sighting(), outgrown=outgrown)
    assert tuple(x for x in planned if not isinstance(x, AwaitAgent)) == (*expected, SETTLE)


def test_a_single_one_that_is_too_old_is_replaced() -> None:
    tree = LoadBalancerTree(load_balancer=load_balancer(generation=3), amphorae=(amphora(**STALE),))
    assert steps(tree, outgrown={OLD})[0] == WishReplacement(OLD)
    tree = replace(tree, amphorae=(amphora(**STALE, **UNWANTED),))
    assert steps(tree, outgrown={OLD})[:2] == (CondemnAmphora(OLD), DestroyAmphora(OLD))


def test_nothing_is_settled_by_the_push_to_the_other_one() -> None:
    tree = a_pair(STALE, STALE)
    assert closing_generation(steps(tree, outgrown={OLD}), tree) is None
    assert closing_generation((ApplyConfiguration(OTHER), SETTLE), tree) == 2


def test_one_that_does_not_serve_yet_is_replaced_whatever_the_other_does() -> None:
    starting: dict[str, object] = {"status": AmphoraStatus.BOOTING, "receipt": None}
    assert steps(a_pair(starting, starting | UNWANTED))[0] == CondemnAmphora(OTHER)


def test_revived_agent_is_awaited_and_gets_its_configuration() -> None:
    tree = LoadBalancerTree(load_balancer=load_balancer(), amphorae=(amphora(suspected_at=SUSPECTED),))
    expected = (BuildAmphora(OLD, revive=True), AwaitAgent(OLD), ApplyConfiguration(OLD), SETTLE)
    assert steps(tree, seen(PlaceState.STOPPED, balancing=True)) == expected


def test_partial_result_is_recorded_even_when_nothing_is_pushed() -> None:
    tree = LoadBalancerTree(load_balancer=load_balancer(), amphorae=(amphora(),))
    assert steps(tree, partial=True) == (SETTLE,)


def test_ordinary_edit_asks_nobody() -> None:
    tree = LoadBalancerTree(load_balancer=load_balancer(generation=3), amphorae=(amphora(),))
    assert not needs_look(tree, amphora())
    assert needs_look(tree, amphora(suspected_at=SUSPECTED))
    assert needs_look(tree, amphora(status=AmphoraStatus.BOOTING))
    assert not needs_look(tree, amphora(status=AmphoraStatus.BOOTING, replacement_requested_at=NOW))


# ---------------------------------------------------------------- bursts of edits


@pytest.mark.parametrize(
    "steps, pushed, carried",
    [
        pytest.param((), {OLD: 5}, None, id="nothing remains"),
        pytest.param((RecordSettled(5),), {OLD: 5}, None, id="no edit came"),
        pytest.param((ApplyConfiguration(OLD),), {}, None, id="the first push"),
        pytest.param((ApplyConfiguration(OTHER), RecordSettled(6)), {OLD: 5}, None, id="the pair's other half waits"),
        pytest.param((ApplyConfiguration(OLD), RecordSettled(9)), {OLD: 5}, 5, id="an edit came while it was pushed"),
        pytest.param((ApplyConfiguration(OLD), RecordSettled(9)), {OLD: 5, OTHER: 6}, 5, id="a pair, pushed in turn"),
        pytest.param((ApplyConfiguration(OLD), LookAgain(timedelta(1))), {OLD: 5}, None, id="another is waited for"),
        pytest.param((CondemnAmphora(OLD), DestroyAmphora(OLD)), {OLD: 5}, None, id="it is to go"),
    ],
)
def test_edits_without_end_settle_push_by_push(
    steps: tuple[Step, ...], pushed: dict[AmphoraId, int], carried: int | None
) -> None:
    assert carried_before_next_push(steps, pushed) == carried


def test_who_waits_longest_is_pushed_to_first() -> None:
    pair = load_balancer(topology=Topology.ACTIVE_STANDBY, generation=9)

    def carrying(amphora_id: AmphoraId, role: AmphoraRole, generation: int) -> Amphora:
        receipt = Receipt(generation=generation, digest="older", driver_version="1", applied_at=NOW)
        return amphora(id=amphora_id, role=role, receipt=receipt)

    tree = LoadBalancerTree(
        load_balancer=pair,
        amphorae=(carrying(OLD, AmphoraRole.MASTER, 8), carrying(NEW, AmphoraRole.BACKUP, 7)),
    )
    steps = plan(tree, {}, {OLD: WANTED, NEW: WANTED}, NOW, SETTINGS, iter(()))
    assert steps == (ApplyConfiguration(NEW), ApplyConfiguration(OLD), RecordSettled(9))


@pytest.mark.parametrize(
    "amphorae,plugging,expected",
    [
        pytest.param(
            (),
            {},
            (
                RecordAmphora(NEW, AmphoraRole.STANDALONE),
                BuildAmphora(NEW),
                AwaitAgent(NEW),
                PlugAmphora(NEW),
                ApplyConfiguration(NEW),
                RecordSettled(2),
            ),
            id="a new amphora is plugged before the first push",
        ),
        pytest.param(
            (amphora(status=AmphoraStatus.PENDING_DELETE),),
            {},
            (
                RecordAmphora(NEW, AmphoraRole.STANDALONE),
                BuildAmphora(NEW),
                AwaitAgent(NEW),
                PlugAmphora(NEW),
                ApplyConfiguration(NEW),
                RecordSettled(2),
                DestroyAmphora(OLD),
            ),
            id="who is to go and has no ports is waited for by nobody",
        ),
        pytest.param(
            (amphora(status=AmphoraStatus.PENDING_DELETE, ports=(PORT,)),),
            {},
            (
                DestroyAmphora(OLD),
                RecordAmphora(NEW, AmphoraRole.STANDALONE),
                BuildAmphora(NEW),
                AwaitAgent(NEW),
                PlugAmphora(NEW),
                ApplyConfiguration(NEW),
                RecordSettled(2),
            ),
            id="who is to go and has ports goes first",
        ),
        pytest.param((amphora(),), {OLD: Plugging()}, (), id="all is plugged"),
        pytest.param(
            (amphora(receipt=None),),
            {OLD: Plugging(lacks=True, spare=True)},
            (PlugAmphora(OLD), ApplyConfiguration(OLD), UnplugAmphora(OLD), RecordSettled(2)),
            id="what is lacking comes before the push, what is spare goes after it",
        ),
        pytest.param(
            (amphora(suspected_at=SUSPECTED),),
            {OLD: Plugging(lacks=True, spare=True)},
            (LookAgain(timedelta(milliseconds=500)),),
            id="who is waited for is not plugged",
        ),
        pytest.param(
            (amphora(push_requested_at=NOW + timedelta(seconds=1)),),
            {OLD: Plugging()},
            (PlugAmphora(OLD), ApplyConfiguration(OLD), RecordSettled(2)),
            id="who may have lost its files is told its interfaces too",
        ),
    ],
)
def test_plugging_is_planned(
    amphorae: tuple[Amphora, ...], plugging: dict[AmphoraId, Plugging], expected: tuple[Step, ...]
) -> None:
    tree = LoadBalancerTree(load_balancer=load_balancer(), amphorae=amphorae)
    sightings = {x.id: seen(PlaceState.RUNNING) for x in amphorae if x.suspected_at is not None}
    digests = {x.id: WANTED for x in amphorae}
    assert plan(tree, sightings, digests, NOW, SETTINGS, ids(), plugging=plugging) == expected

"""Which orphans are so many that they are left alone: a lost database shows so, and no tenant can make it look so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from frontinus.controller.sweep_plan import ALWAYS_BELIEVED, Survey, group, survey
from frontinus.model.belongings import Belonging, BelongingKind, Owner, OwnerKind
from frontinus.model.ids import AmphoraId, LoadBalancerId, ProjectId
from frontinus.model.orphans import Sighting

pytestmark = pytest.mark.unit

NOW = datetime(2026, 1, 2, tzinfo=UTC)
A, B = ProjectId("a"), ProjectId("b")


def amphorae(count: int, word: str = "x") -> list[Belonging]:
    """Servers, which nobody but us can make."""
    return [
        Belonging(kind=BelongingKind.SERVER, name=f"{word}{n}", proof="name", amphora_id=AmphoraId(f"{word}{n}"))
        for n in range(count)
    ]


def vips(count: int, tenant: ProjectId, word: str = "y") -> list[Belonging]:
    return [
        Belonging(
            kind=BelongingKind.ADDRESS,
            name=f"{tenant}{word}{n}",
            proof="tags",
            load_balancer_id=LoadBalancerId(f"{tenant}{word}{n}"),
            tenant=tenant,
        )
        for n in range(count)
    ]


def seen(wanted: list[Belonging], lost: list[Belonging]) -> Survey:
    owners = {x.owner for x in lost}
    sightings = {x: Sighting(kind=x.kind, owner_id=x.id, first_seen_at=NOW, seen_at=NOW) for x in owners}
    return survey(group([*wanted, *lost]), sightings, timedelta(minutes=5))


MANY = ALWAYS_BELIEVED + 1
FEW = ALWAYS_BELIEVED
SIX = [ProjectId(str(n)) for n in range(MANY)]
UNUSED = [Belonging(kind=BelongingKind.CERTIFICATE, name=str(n), proof="issued") for n in range(50)]


def everyone(of: Survey) -> set[Owner]:
    return {x.owner for x in of.orphans}


@pytest.mark.parametrize(
    "wanted,lost",
    [
        pytest.param([], [], id="nothing"),
        pytest.param([], amphorae(FEW), id="few of ours"),
        pytest.param(amphorae(10 * MANY, "w"), amphorae(MANY), id="a tenth of ours"),
        pytest.param([], UNUSED, id="what was nobody's from the start"),
        pytest.param(amphorae(FEW, "w"), [*amphorae(2), *vips(2, A)], id="what a controller that dies leaves"),
        pytest.param([], vips(FEW, A), id="few of a tenant"),
        pytest.param(vips(100, A, "w"), vips(10, A), id="a tenth of a tenant's"),
    ],
)
def test_few_are_believed(wanted: list[Belonging], lost: list[Belonging]) -> None:
    assert seen(wanted, lost).held == ()


@pytest.mark.parametrize(
    "wanted,lost",
    [
        pytest.param([], amphorae(MANY), id="of ours"),
        pytest.param(amphorae(30, "w"), amphorae(MANY), id="more than a tenth of ours"),
        pytest.param([], [*amphorae(3), *vips(3, A)], id="three load balancers and their amphorae"),
        pytest.param([], [*amphorae(MANY), *UNUSED], id="and then nothing goes"),
        pytest.param([], [x for project in SIX for x in vips(1, project)], id="one VIP of each tenant, and no amphora"),
    ],
)
def test_many_are_not(wanted: list[Belonging], lost: list[Belonging]) -> None:
    survey = seen(wanted, lost)
    assert {x.owner for x in survey.held} == everyone(survey)


@pytest.mark.parametrize("forged", [MANY, 1000])
def test_a_tenant_holds_up_his_own_project_alone(forged: int) -> None:
    others = [*amphorae(2), *vips(2, B), *UNUSED]
    survey = seen(amphorae(3, "w"), [*others, *vips(forged, A)])
    assert survey.is_believed
    held = {x.owner for x in survey.held}
    assert held == {x.owner for x in vips(forged, A)}
    assert everyone(survey) - held == {x.owner for x in others}


def test_what_a_tenant_marks_as_somebody_elses_that_is_wanted_is_no_orphan() -> None:
    wanted = vips(1, A)
    forged = Belonging(
        kind=BelongingKind.ADDRESS, name="f", proof="tags", load_balancer_id=wanted[0].load_balancer_id, tenant=B
    )
    assert seen([*wanted, forged], []).orphans == ()
    assert wanted[0].owner.kind is OwnerKind.LOAD_BALANCER

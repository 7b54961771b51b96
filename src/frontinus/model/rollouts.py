"""Rollouts: what is changed, for whom, in which waves, under which gates, and how far it is. Values, one table of states, and
the choices that must come out the same wherever they are made. No I/O, no clock.

A rollout is rows and no process. Next: controller/rollout_plan.py, which decides its next turn."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NewType

import msgspec

from frontinus.model.enums import AmphoraStatus, OperatingStatus, ProvisioningStatus
from frontinus.model.errors import Conflict
from frontinus.model.ids import AmphoraId, FlavorId, LoadBalancerId, ProjectId

RolloutId = NewType("RolloutId", str)

ALL_AT_ONCE = 0
"""As Waves.at_once: no bound."""


class RolloutKind(StrEnum):
    """What a rollout does to a load balancer."""

    DRIVER = "driver"
    """It is served by another version of its driver, and so has what that renders."""
    CERTIFICATES = "certificates"
    """Its amphorae get fresh certificates of the current authority."""
    AUTHORITY = "authority"
    """Its amphorae get what the present phase of a change of the authority says (drivers/amphora/agent/authority.py)."""
    IMAGE = "image"
    """Its amphorae are replaced by such of the current image, one of a pair at a time."""


class RolloutState(StrEnum):
    """Where a rollout stands. Only the first two and ROLLING_BACK move anything."""

    RUNNING = "running"
    PAUSED = "paused"
    HALTED = "halted"
    """It stopped by itself on a bad sign; `reason` says on which."""
    FINISHED = "finished"
    ABORTED = "aborted"
    ROLLING_BACK = "rolling-back"
    ROLLED_BACK = "rolled-back"


class MoveState(StrEnum):
    """Where one load balancer of a rollout stands."""

    WAITING = "waiting"
    MOVED = "moved"
    """It was asked for; no receipt yet."""
    ARRIVED = "arrived"
    """It has it; it is watched for bad signs."""
    PASSED = "passed"
    FAILED = "failed"
    GONE = "gone"
    """It was deleted meanwhile."""
    RETURNING = "returning"
    RETURNED = "returned"


_S = RolloutState

MAY_FOLLOW: Mapping[RolloutState, tuple[RolloutState, ...]] = {
    _S.RUNNING: (_S.PAUSED, _S.HALTED, _S.FINISHED, _S.ABORTED, _S.ROLLING_BACK),
    _S.PAUSED: (_S.RUNNING, _S.ABORTED, _S.ROLLING_BACK),
    _S.HALTED: (_S.RUNNING, _S.ABORTED, _S.ROLLING_BACK),
    _S.FINISHED: (_S.ROLLING_BACK,),
    _S.ABORTED: (_S.ROLLING_BACK,),
    _S.ROLLING_BACK: (_S.ROLLED_BACK, _S.ABORTED),
    _S.ROLLED_BACK: (),
}
"""The one table of what may come after what."""

ENDED = (_S.FINISHED, _S.ABORTED, _S.ROLLED_BACK)
"""In these a rollout moves nothing and keeps no other from starting."""

IN_FLIGHT = (MoveState.MOVED, MoveState.ARRIVED)

TOUCHED = (MoveState.MOVED, MoveState.ARRIVED, MoveState.PASSED, MoveState.FAILED)
"""What a rollback takes back."""


class Selection(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """To whom: load balancers of the driver that have all of these. `percent` is of those, always the same ones: whoever is
    among 10 percent is among 50."""

    flavor_id: FlavorId | None = None
    project_id: ProjectId | None = None
    tag: str | None = None
    percent: float = 100.0

    def in_words(self) -> str:
        named = [
            f"{word} {value}"
            for word, value in (("flavor", self.flavor_id), ("project", self.project_id), ("tag", self.tag))
            if value is not None
        ]
        part = [] if self.percent >= 100 else [f"{self.percent:g} %"]
        return ", ".join([*named, *part]) or "all"


class Waves(msgspec.Struct, frozen=True, kw_only=True):
    """How fast: so many first (the canary), and when they have been good for `canary_soak` the others, at most `at_once` at
    a time (ALL_AT_ONCE: no bound), each of which is watched for `soak`."""

    canary: int = 1
    canary_soak: timedelta = timedelta(seconds=30)
    at_once: int = 50
    soak: timedelta = timedelta(seconds=5)


class Gates(msgspec.Struct, frozen=True, kw_only=True):
    """When to stop. Whatever they say, a fault and a receipt that does not come within `patience` are bad signs.

    `heartbeats`: every amphora must be heard since it has it, none may be suspected, and the operating status be no worse
    than it was. `error_rate`: the greatest part of requests of its listeners that may be errors, once there are `fewest_requests`
    since the move; None: not looked at. `most_failures`: so many load balancers may have a bad sign before it halts."""

    patience: timedelta = timedelta(seconds=60)
    heartbeats: bool = True
    error_rate: float | None = 0.05
    fewest_requests: int = 20
    most_failures: int = 0


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """One rollout. `target` is the version of the driver (kind DRIVER; else empty). `in_canary` until the first wave has
    passed; `wave_since` is when the present wave began. `active_driver` is the driver while it is not over, so that no two
    are under way for one driver."""

    id: RolloutId
    kind: RolloutKind
    driver: str
    target: str
    selection: Selection
    waves: Waves
    gates: Gates
    state: RolloutState
    reason: str = ""
    in_canary: bool
    wave_since: datetime
    created_at: datetime
    ended_at: datetime | None = None
    active_driver: str | None = None

    def in_words(self) -> str:
        """What it does, as in `driver haproxy to 0.5.0`."""
        match self.kind:
            case RolloutKind.DRIVER:
                return f"driver {self.driver} to {self.target}"
            case RolloutKind.CERTIFICATES:
                return f"fresh certificates for amphorae of {self.driver}"
            case RolloutKind.AUTHORITY:
                return f"a step of the authority of {self.driver}"
            case RolloutKind.IMAGE:
                return f"amphorae of {self.driver} from the current image"


class Before(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a load balancer was when it was moved: what the gates compare with, and to what a rollback goes.

    `troubled`: it had a fault, or an amphora was silent; what is wrong with it afterwards halts nothing."""

    driver_version: str = ""
    edited_at: datetime | None = None
    operating_status: OperatingStatus = OperatingStatus.OFFLINE
    troubled: bool = False
    heard: bool = False
    connections: int = 0
    errors: int = 0
    digests: Mapping[AmphoraId, str] = {}


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """One load balancer of a rollout. `position` is its turn."""

    rollout_id: RolloutId
    load_balancer_id: LoadBalancerId
    position: int
    state: MoveState = MoveState.WAITING
    before: Before | None = None
    moved_at: datetime | None = None
    arrived_at: datetime | None = None
    reason: str = ""


class AmphoraFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a rollout looks at of one amphora that is not gone."""

    id: AmphoraId
    status: AmphoraStatus
    digest: str | None
    applied_at: datetime | None
    suspected: bool
    seen_at: datetime | None
    renew_at: datetime | None
    unwanted: bool


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a rollout looks at of one load balancer. `due`: a controller has yet to look, or is looking. `edited_at`: when somebody last asked for something."""

    driver_version: str
    edited_at: datetime | None
    generation: int
    applied_generation: int
    provisioning_status: ProvisioningStatus
    operating_status: OperatingStatus
    due: bool
    fault: str | None
    amphorae: tuple[AmphoraFacts, ...] = ()
    connections: int = 0
    errors: int = 0

    @property
    def is_settled(self) -> bool:
        return (
            not self.due
            and self.fault is None
            and self.generation == self.applied_generation
            and self.provisioning_status is ProvisioningStatus.ACTIVE
            and all(x.status is AmphoraStatus.ALLOCATED for x in self.amphorae)
        )


def follow(before: RolloutState, after: RolloutState) -> RolloutState:
    """The state after, if it may follow. Raises Conflict naming both."""
    if after not in MAY_FOLLOW[before]:
        may = ", ".join(sorted(MAY_FOLLOW[before])) or "nothing any more"
        raise Conflict("rollout", f"it is {before}, and cannot become {after}; it may become {may}")
    return after


def share_of(load_balancer_id: LoadBalancerId) -> float:
    """Where a load balancer stands among all, from 0 to below 100: the same for ever, and evenly spread. Percentages are
    below it, and turns follow it."""
    first = hashlib.sha256(load_balancer_id.encode()).digest()[:6]
    return int.from_bytes(first) * 100 / (1 << 48)


def in_turn(candidates: Iterable[tuple[LoadBalancerId, bool]], percent: float) -> list[LoadBalancerId]:
    """Those of the candidates (with whether they are in trouble already) that are among `percent`, in their turns. Who is in
    trouble comes last: as a canary it would tell nothing."""
    chosen = [(troubled, share_of(x), x) for x, troubled in candidates if share_of(x) < percent]
    return [x for _, _, x in sorted(chosen)]


def time_left(counts: Mapping[MoveState, int], rollout: Rollout, now: datetime) -> timedelta | None:
    """How long the present wave will take at the pace that it had so far, and then what is watched; None while nothing can be
    said."""
    if rollout.state not in (RolloutState.RUNNING, RolloutState.ROLLING_BACK):
        return None
    if rollout.in_canary and rollout.state is RolloutState.RUNNING:
        return None
    if rollout.state is RolloutState.ROLLING_BACK:
        done, to_do = counts.get(MoveState.RETURNED, 0), sum(counts.get(x, 0) for x in (*TOUCHED, MoveState.RETURNING))
    else:
        done = max(0, counts.get(MoveState.PASSED, 0) - rollout.waves.canary)
        to_do = sum(counts.get(x, 0) for x in (MoveState.WAITING, *IN_FLIGHT))
    if not done:
        return None
    return (now - rollout.wave_since) * to_do / done

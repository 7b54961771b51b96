"""Which controllers there are, what their drivers can do, and which providers are served.

Rows outlive their controllers, so that the API knows what a provider can do while its controller is being restarted. Who
registers joins the cohort of its driver and version (cohorts.py), if it has the settings that the others of it have."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
from sqlalchemy import and_, bindparam, delete, insert, or_, select, update

from frontinus.model.capabilities import Capabilities
from frontinus.model.cohorts import SILENT_AFTER, CohortName
from frontinus.model.errors import Conflict, NotFound
from frontinus.model.ids import ControllerId
from frontinus.store import cohorts
from frontinus.store.engine import Transaction
from frontinus.store.rows import Shape, from_microseconds, to_microseconds
from frontinus.store.schema import controller
from frontinus.store.statement import Statement

_FORGET_AFTER = timedelta(days=1)

_t = controller.c


class Controller(msgspec.Struct, frozen=True, kw_only=True):
    """One running controller process: its driver, and the provider name that users know the driver by.

    `configuration` has a digest of each setting that a cohort must agree on, by its key; `config_digest` is of all of them.
    None: a version that published none."""

    id: ControllerId
    driver: str
    driver_version: str
    host: str
    pid: int
    capabilities: Capabilities
    provider: str
    started_at: datetime
    seen_at: datetime
    config_digest: str | None = None
    configuration: dict[str, str] | None = None

    @property
    def cohort(self) -> CohortName:
        return CohortName(self.driver, self.driver_version)


_SHAPE = Shape(Controller, controller)
_INSERT = Statement(insert(controller).values({name: bindparam(name) for name in _SHAPE.columns}))
_DELETE = Statement(delete(controller).where(_t.id == bindparam("which")))
_FORGET = Statement(
    delete(controller).where(
        _t.provider == bindparam("which_provider"),
        _t.driver == bindparam("which_driver"),
        or_(
            and_(_t.driver_version == bindparam("which_version"), _t.stopped_at.is_not(None)),
            _t.seen_at < bindparam("silent_since"),
        ),
    )
)
_SEEN = Statement(
    update(controller).where(_t.id == bindparam("which")).values(seen_at=bindparam("now"), stopped_at=None)
)
_LAST_SEEN = Statement(select(_t.seen_at).where(_t.id == bindparam("which"), _t.stopped_at.is_(None)))
_STOPPED = Statement(update(controller).where(_t.id == bindparam("which")).values(stopped_at=_t.seen_at))
_NEWEST = Statement(
    select(_t.capabilities)
    .where(_t.provider == bindparam("which"))
    .order_by(_t.started_at.desc(), _t.id.desc())
    .limit(1)
)
_PROVIDERS = Statement(select(_t.provider).distinct().order_by(_t.provider))

_RUNNING = Statement(
    select(*(_t[name] for name in _SHAPE.columns)).where(_t.stopped_at.is_(None)).order_by(_t.host, _t.pid)
)
_OTHERS = Statement(
    select(*(_t[name] for name in _SHAPE.columns)).where(
        _t.driver == bindparam("which_driver"),
        _t.driver_version == bindparam("which_version"),
        _t.id != bindparam("which"),
        _t.stopped_at.is_(None),
        _t.seen_at > bindparam("silent_since"),
        _t.config_digest != bindparam("digest"),
    )
)
_STOP_ALL = Statement(update(controller).where(_t.stopped_at.is_(None)).values(stopped_at=_t.seen_at))

_load_capabilities = msgspec.json.Decoder(Capabilities).decode


def register(tx: Transaction, arrived: Controller) -> None:
    """Make a controller and its driver's capabilities known, and have it join its cohort. May be repeated; the last one
    counts. Rows of the same provider and cohort that stopped, and those of the driver that were silent for a day, are
    forgotten.

    Raises Conflict, naming both hosts and what differs, when a controller of the cohort lives that has other settings: what
    they render and build would differ, and each would undo what the other did."""
    of_cohort = {"which_driver": arrived.driver, "which_version": arrived.driver_version}
    cohorts.join(tx, arrived.cohort, arrived.provider, arrived.capabilities, arrived.config_digest, arrived.started_at)
    _require_same_settings(tx, arrived)
    tx.run(_DELETE, {"which": arrived.id})
    tx.run(
        _FORGET,
        {
            **of_cohort,
            "which_provider": arrived.provider,
            "silent_since": to_microseconds(arrived.started_at - _FORGET_AFTER),
        },
    )
    tx.insert(_INSERT, _SHAPE.columns, [_SHAPE.encode(arrived)])


def _require_same_settings(tx: Transaction, arrived: Controller) -> None:
    if arrived.config_digest is None:
        return
    row = tx.row(
        _OTHERS,
        {
            "which_driver": arrived.driver,
            "which_version": arrived.driver_version,
            "which": arrived.id,
            "digest": arrived.config_digest,
            "silent_since": to_microseconds(arrived.started_at - SILENT_AFTER),
        },
    )
    if row is None:
        return
    other = _SHAPE.decode(row)
    ours, theirs = arrived.configuration or {}, other.configuration or {}
    differing = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    raise Conflict(
        "",
        f"this controller on {arrived.host} has other settings than the one on {other.host} (process {other.pid}), which is "
        f"of the same cohort, {arrived.cohort}: {', '.join(differing) or 'what differs cannot be told'}. All controllers of "
        "a cohort need the same; to change them, stop all of it first (traffic goes on), then start them anew. A controller "
        f"that was killed counts for {SILENT_AFTER.total_seconds():.0f} s after its death",
    )


def stop_others(tx: Transaction) -> None:
    """Note of every controller that it stopped. Only for a caller who can prove that no other lives, before it registers."""
    tx.run(_STOP_ALL, {})


def keep_alive(tx: Transaction, controller_id: ControllerId, now: datetime) -> None:
    """Note that a controller still runs. Raises NotFound if it is not registered (any more): register again."""
    if tx.run(_SEEN, {"which": controller_id, "now": to_microseconds(now)}) != 1:
        raise NotFound("controller", f"{controller_id} is not registered")


def unregister(tx: Transaction, controller_id: ControllerId) -> None:
    """Note that a controller stopped. What its driver can do stays known. Unknown ids are done already."""
    tx.run(_STOPPED, {"which": controller_id})


def capabilities_of(tx: Transaction, provider: str) -> Capabilities | None:
    """What the newest controller of this provider can do, running now or not; None if there never was one."""
    row = tx.row(_NEWEST, {"which": provider})
    return None if row is None else _load_capabilities(row[0])


def running(tx: Transaction) -> list[Controller]:
    """Controllers that have not said goodbye; `seen_at` tells whether they live."""
    return [_SHAPE.decode(row) for row in tx.rows(_RUNNING, {})]


def last_seen(tx: Transaction, controller_id: ControllerId) -> datetime | None:
    """When a controller last said that it is there; None if it stopped, or is not known (any more)."""
    row = tx.row(_LAST_SEEN, {"which": controller_id})
    return None if row is None else from_microseconds(row[0])


def providers(tx: Transaction) -> list[str]:
    """The providers that controllers have registered for, in order of name."""
    return [row[0] for row in tx.rows(_PROVIDERS, {})]

"""Which controllers there are, what their drivers can do, and which providers are served.

Rows outlive their controllers, so that the API knows what a provider can do while its controller is being restarted. A
driver that was never here before is the one change that can cure what only a user could change until now."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
from sqlalchemy import bindparam, delete, insert, or_, select, update

from frontinus.model.capabilities import Capabilities
from frontinus.model.enums import ProvisioningStatus
from frontinus.model.errors import NotFound
from frontinus.model.ids import ControllerId
from frontinus.store.engine import Transaction
from frontinus.store.rows import Shape, to_microseconds
from frontinus.store.schema import controller, load_balancer
from frontinus.store.statement import Statement, Value

_FORGET_AFTER = timedelta(days=1)

_t = controller.c


class Controller(msgspec.Struct, frozen=True, kw_only=True):
    """One running controller process: its driver, and the provider name that users know the driver by."""

    id: ControllerId
    driver: str
    driver_version: str
    host: str
    pid: int
    capabilities: Capabilities
    provider: str
    started_at: datetime
    seen_at: datetime


_SHAPE = Shape(Controller, controller)
_INSERT = Statement(insert(controller).values({name: bindparam(name) for name in _SHAPE.columns}))
_DELETE = Statement(delete(controller).where(_t.id == bindparam("which")))
_FORGET = Statement(
    delete(controller).where(
        _t.provider == bindparam("which_provider"),
        _t.driver == bindparam("which_driver"),
        or_(_t.stopped_at.is_not(None), _t.seen_at < bindparam("silent_since")),
    )
)
_SEEN = Statement(
    update(controller).where(_t.id == bindparam("which")).values(seen_at=bindparam("now"), stopped_at=None)
)
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
_KNOWN = Statement(
    select(_t.id)
    .where(
        _t.provider == bindparam("which_provider"),
        _t.driver == bindparam("which_driver"),
        _t.driver_version == bindparam("which_version"),
    )
    .limit(1)
)
_lb = load_balancer.c
_JUDGE_ANEW = Statement(
    update(load_balancer)
    .where(
        _lb.provider == bindparam("which_provider"),
        _lb.fault.is_not(None),
        _lb.due_at.is_(None),
        _lb.provisioning_status != ProvisioningStatus.DELETED.value,
    )
    .values(due_at=bindparam("now"), nudges=_lb.nudges + 1)
)

_load_capabilities = msgspec.json.Decoder(Capabilities).decode


def register(tx: Transaction, arrived: Controller) -> None:
    """Make a controller and its driver's capabilities known. May be repeated; the last one counts.

    Rows of the same provider and driver that stopped, or were silent for a day, are forgotten. With a version of the
    driver that was not known, load balancers whose fault waits for the user are looked at once more: what one version
    cannot render another may."""
    version = {
        "which_provider": arrived.provider,
        "which_driver": arrived.driver,
        "which_version": arrived.driver_version,
    }
    if tx.row(_KNOWN, version) is None:
        waiting: dict[str, Value] = {"which_provider": arrived.provider, "now": to_microseconds(arrived.started_at)}
        if tx.run(_JUDGE_ANEW, waiting):
            tx.wake()
    tx.run(_DELETE, {"which": arrived.id})
    tx.run(
        _FORGET,
        {
            "which_provider": arrived.provider,
            "which_driver": arrived.driver,
            "silent_since": to_microseconds(arrived.started_at - _FORGET_AFTER),
        },
    )
    tx.insert(_INSERT, _SHAPE.columns, [_SHAPE.encode(arrived)])


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


def providers(tx: Transaction) -> list[str]:
    """The providers that controllers have registered for, in order of name."""
    return [row[0] for row in tx.rows(_PROVIDERS, {})]

"""Traffic counters, summed. What amphorae that are gone have carried still counts; their open connections do not."""

from __future__ import annotations

from sqlalchemy import Select, bindparam, case, func, select

from frontinus.model.enums import AmphoraStatus
from frontinus.model.heartbeat import Counters
from frontinus.model.ids import ListenerId, LoadBalancerId
from frontinus.store import schema
from frontinus.store.engine import Transaction
from frontinus.store.statement import Statement

_t = schema.listener_statistics.c
_amphora = schema.amphora


def _sums() -> Select[tuple[int, ...]]:
    return select(
        func.coalesce(func.sum(_t.bytes_in), 0),
        func.coalesce(func.sum(_t.bytes_out), 0),
        func.coalesce(func.sum(case((_amphora.c.id.is_not(None), _t.active_connections), else_=0)), 0),
        func.coalesce(func.sum(_t.total_connections), 0),
        func.coalesce(func.sum(_t.request_errors), 0),
    ).select_from(
        schema.listener_statistics.outerjoin(
            _amphora, (_amphora.c.id == _t.amphora_id) & (_amphora.c.status != AmphoraStatus.DELETED.value)
        )
    )


_OF_LISTENER = Statement(_sums().where(_t.listener_id == bindparam("which")))
_OF_LOAD_BALANCER = Statement(
    _sums().where(
        _t.listener_id.in_(select(schema.listener.c.id).where(schema.listener.c.load_balancer_id == bindparam("which")))
    )
)


def listener_statistics(tx: Transaction, listener_id: ListenerId) -> Counters:
    """The traffic of one listener over all its amphorae; zeros if there was none."""
    return _counters(tx, _OF_LISTENER, listener_id)


def load_balancer_statistics(tx: Transaction, load_balancer_id: LoadBalancerId) -> Counters:
    """The traffic of all listeners that a load balancer has; zeros if there was none."""
    return _counters(tx, _OF_LOAD_BALANCER, load_balancer_id)


def _counters(tx: Transaction, statement: Statement, which: str) -> Counters:
    row = tx.row(statement, {"which": which})
    if row is None:
        return Counters()
    # PostgreSQL and MariaDB sum integers to decimals.
    bytes_in, bytes_out, active, total, errors = (int(x) for x in row)
    return Counters(
        bytes_in=bytes_in,
        bytes_out=bytes_out,
        active_connections=active,
        total_connections=total,
        request_errors=errors,
    )

"""Keep load balancers that somebody else has built: settled, with their amphorae, and with nothing due.

Each load balancer is one transaction, and so is each offer and quota: whoever is interrupted begins again, and finds what
is there."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import bindparam, select

from frontinus.model.enums import Kind
from frontinus.model.errors import Conflict
from frontinus.model.ids import ProjectId
from frontinus.model.tree import LoadBalancerTree
from frontinus.store import offers, quotas, rows, schema
from frontinus.store.engine import Transaction
from frontinus.store.offers import Offer
from frontinus.store.statement import Statement
from frontinus.store.trees import insert_tree, inserts

_lb = schema.load_balancer.c
_KNOWN = Statement(select(_lb.provisioning_status).where(_lb.id == bindparam("id")))
_INSERT_AMPHORA = inserts(rows.AMPHORA, rows.AMPHORA.columns)


def add_tree(tx: Transaction, tree: LoadBalancerTree) -> bool:
    """Keep the tree as it is, with its amphorae; False, and nothing done, when the load balancer is here already, also one
    that was deleted since. No controller looks at it until something is changed, or its amphorae fall silent."""
    if tx.row(_KNOWN, {"id": tree.id}) is not None:
        return False
    insert_tree(tx, tree, None, due_at=None)  # the newest active cohort takes it
    tx.insert(_INSERT_AMPHORA, rows.AMPHORA.columns, [rows.AMPHORA.encode(x) for x in tree.amphorae])
    return True


def add_offer(tx: Transaction, offer: Offer) -> bool:
    """False, and nothing done, when it is here already. Raises Conflict when another one has its name."""
    if offers.hold(tx, offer.kind, offers.key(offer)):
        return False
    try:
        offers.add(tx, offer)
    except Conflict as error:
        raise Conflict(error.field, f"{error.reason}, which is another one") from error
    return True


def add_quota(tx: Transaction, project_id: ProjectId, limits: Mapping[Kind, int | None], now: datetime) -> bool:
    """False, and nothing done, when the project has a record here."""
    if quotas.has_record(tx, project_id):
        return False
    quotas.change(tx, project_id, limits, now)
    return True

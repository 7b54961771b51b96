"""From what the amphorae say to the operating status of everything in the tree. Pure.

Source of each rule: contract/heartbeat.yaml, status_mapping. One report, or for a pair the report of the amphora that
answers for the VIP, is weighed against the tree."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from frontinus.model.enums import OperatingStatus, ProvisioningStatus
from frontinus.model.heartbeat import Heartbeat, PoolReport
from frontinus.model.tree import LastCheck, LoadBalancerTree, Member, TreeObject

_O = OperatingStatus


def observed_statuses(tree: LoadBalancerTree, report: Heartbeat) -> dict[str, OperatingStatus]:
    """The operating status of the load balancer, its listeners, pools and members, by id.

    Ids that the report names and the tree does not have are ignored: an amphora may be one push behind."""
    load_balancer = tree.load_balancer
    result: dict[str, OperatingStatus] = {}
    worst = _O.ONLINE if load_balancer.admin_state_up else _O.OFFLINE
    settled = load_balancer.provisioning_status is ProvisioningStatus.ACTIVE
    for listener in tree.listeners:
        said = report.listeners.get(listener.id)
        if said is None:
            missing_is_wrong = (
                listener.admin_state_up
                and load_balancer.admin_state_up
                and settled
                and listener.provisioning_status is ProvisioningStatus.ACTIVE
            )
            result[listener.id] = _O.ERROR if missing_is_wrong else _O.OFFLINE
        elif said.status == "OPEN":
            result[listener.id] = _O.ONLINE
        elif said.status == "FULL":
            result[listener.id] = _O.DEGRADED
            worst = _worse(worst, _O.DEGRADED)
        else:
            result[listener.id] = listener.operating_status
    for pool in tree.pools:
        status = _pool_status(report.pools.get(pool.id), pool.operating_status)
        for member in tree.members_of(pool.id):
            seen = _member_status(report.pools.get(pool.id), member)
            result[member.id] = seen
            if seen is _O.ERROR and status is _O.ONLINE:
                status = _O.DEGRADED
        result[pool.id] = status
        if status in (_O.ERROR, _O.DEGRADED):
            worst = _worse(worst, status)
    result[load_balancer.id] = worst
    return result


def changed_statuses(
    tree: LoadBalancerTree, observed: Mapping[str, OperatingStatus]
) -> dict[str, tuple[str, OperatingStatus]]:
    """Those of `observed` that differ from what the tree holds: id -> (kind, status)."""
    known: dict[str, TreeObject] = {
        tree.load_balancer.id: tree.load_balancer,
        **{child.id: child for child in tree.children()},
    }
    return {
        object_id: (known[object_id].kind.value, status)
        for object_id, status in observed.items()
        if object_id in known and known[object_id].operating_status is not status
    }


def changed_checks(tree: LoadBalancerTree, report: Heartbeat, now: datetime) -> dict[str, LastCheck | None]:
    """What is to be kept of why members are down, by member id, where it is something else than the tree holds. None: the
    member is down no more, or nobody tells why. Other words for the same are none: a member has a hand in them, and could
    have them written anew, and `since` begin anew, with every check."""
    result: dict[str, LastCheck | None] = {}
    for member in tree.members:
        pool = report.pools.get(member.pool_id)
        said = None if pool is None else pool.checks.get(member.id)
        known = member.last_check
        if said is None:
            if known is not None:
                result[member.id] = None
        elif known is None or (known.status, known.code) != (said.status, said.code):
            result[member.id] = LastCheck(status=said.status, code=said.code, text=said.text, since=now)
    return result


def _pool_status(report: PoolReport | None, current: OperatingStatus) -> OperatingStatus:
    if report is None:
        return _O.OFFLINE
    return {"UP": _O.ONLINE, "DOWN": _O.ERROR}.get(report.status, current)


def _member_status(report: PoolReport | None, member: Member) -> OperatingStatus:
    word = None if report is None else report.members.get(member.id)
    if word is None:
        return _O.NO_MONITOR if member.operating_status is _O.NO_MONITOR else _O.OFFLINE
    if word.startswith("UP"):
        return _O.ONLINE
    if word.startswith("DOWN"):
        return _O.ERROR
    return {"DRAIN": _O.DRAINING, "MAINT": _O.OFFLINE, "no check": _O.NO_MONITOR}.get(word, member.operating_status)


def _worse(one: OperatingStatus, other: OperatingStatus) -> OperatingStatus:
    order = (_O.ONLINE, _O.DEGRADED, _O.ERROR, _O.OFFLINE)
    return max(one, other, key=order.index)

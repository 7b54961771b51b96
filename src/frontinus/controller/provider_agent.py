"""What a provider's driver says and asks through the driver-agent sockets, on the store.

Operating statuses are written as they come. A provisioning status is a report of the call under way and no lock:
provider_reconcile.py waits for it. Shapes and answers: contract/driver-lib.yaml."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from frontinus.model.enums import Kind, OperatingStatus, ProvisioningStatus
from frontinus.model.heartbeat import Counters
from frontinus.model.ids import ListenerId, LoadBalancerId
from frontinus.model.tree import LoadBalancerTree, TreeObject
from frontinus.store import health, providers, trees
from frontinus.store.engine import Store, Transaction

COLLECTIONS: dict[str, Kind] = {
    "members": Kind.MEMBER,
    "healthmonitors": Kind.HEALTH_MONITOR,
    "pools": Kind.POOL,
    "l7rules": Kind.L7_RULE,
    "l7policies": Kind.L7_POLICY,
    "listeners": Kind.LISTENER,
    "loadbalancers": Kind.LOAD_BALANCER,
}
"""By their names on the sockets, in the order in which a status report is carried out: parents after children."""

OK = {"status_code": 200}
_ENDS = (ProvisioningStatus.ACTIVE, ProvisioningStatus.DELETED, ProvisioningStatus.ERROR)
_COUNTERS = ("active_connections", "bytes_in", "bytes_out", "request_errors", "total_connections")

View = Callable[[TreeObject, LoadBalancerTree], dict[str, Any]]


class ProviderAgent:
    """Answers the three sockets. `view` makes octavia-lib's dictionary of an object and what hangs on it."""

    def __init__(self, store: Store, view: View, now: Callable[[], datetime]) -> None:
        self._store = store
        self._view = view
        self._now = now

    async def status(self, request: dict[str, Any]) -> dict[str, Any]:
        """Take a status report; entries before one that is refused stay taken."""
        for name, kind in COLLECTIONS.items():
            for entry in request.get(name) or ():
                refusal = await self._take(name, kind, entry)
                if refusal is not None:
                    return refusal
        return OK

    async def _take(self, name: str, kind: Kind, entry: Any) -> dict[str, Any] | None:
        object_id = entry.get("id") if isinstance(entry, Mapping) else None
        if not isinstance(object_id, str):
            return {"status_code": 500, "fault_string": f"an entry of {name} has no id", "status_object": name}
        try:
            operating = _word(OperatingStatus, entry.get("operating_status"))
            provisioning = _word(ProvisioningStatus, entry.get("provisioning_status"))
        except ValueError as error:
            return {
                "status_code": 500,
                "fault_string": str(error),
                "status_object": name,
                "status_object_id": object_id,
            }
        await self._store.transact(
            partial(self._record, kind=kind, object_id=object_id, operating=operating, provisioning=provisioning)
        )
        return None

    def _record(
        self,
        tx: Transaction,
        kind: Kind,
        object_id: str,
        operating: OperatingStatus | None,
        provisioning: ProvisioningStatus | None,
    ) -> None:
        if operating is not None:
            health.write_operating_statuses(tx, {kind: {object_id: operating}})
        if provisioning is None:
            return
        if provisioning not in _ENDS:
            return  # it is at work: no answer yet, and no trouble
        if kind is Kind.LOAD_BALANCER:
            providers.report(tx, LoadBalancerId(object_id), provisioning.value, None, self._now())
        elif provisioning is ProvisioningStatus.ERROR:
            owner = trees.load_balancer_of(tx, kind, object_id)
            if owner is not None:
                providers.report(tx, owner, provisioning.value, f"{kind} {object_id}", self._now())

    async def statistics(self, request: dict[str, Any]) -> dict[str, Any]:
        """Take totals of listeners, which replace what was told before."""
        told = []
        for entry in request.get("listeners") or ():
            try:
                counters = Counters(**{name: int(entry[name]) for name in _COUNTERS})
                listener_id = ListenerId(str(entry["id"]))
            except (KeyError, TypeError, ValueError) as error:
                text = f"an entry of listeners lacks {error}"
                return {"status_code": 500, "fault_string": text, "stats_object": "listeners"}
            told.append((listener_id, counters))
        await self._store.transact(lambda tx: providers.write_totals(tx, told))
        return OK

    async def lookup(self, request: dict[str, Any]) -> dict[str, Any]:
        """The object as octavia-lib's dictionary; {} for one that is not there."""
        kind, object_id = COLLECTIONS.get(str(request.get("object"))), request.get("id")
        if kind is None or not isinstance(object_id, str):
            return {}
        return await self._store.read(partial(self._look_up, kind=kind, object_id=object_id))

    def _look_up(self, tx: Transaction, kind: Kind, object_id: str) -> dict[str, Any]:
        if kind is Kind.LOAD_BALANCER:
            owner: LoadBalancerId | None = LoadBalancerId(object_id)
        else:
            owner = trees.load_balancer_of(tx, kind, object_id)
        tree = None if owner is None else trees.read_tree(tx, owner)
        if tree is None or tree.load_balancer.provisioning_status is ProvisioningStatus.DELETED:
            return {}
        wanted = tree.wanted()
        found = next((x for x in (wanted.load_balancer, *wanted.children()) if x.id == object_id), None)
        return {} if found is None else self._view(found, wanted)


def _word(words: type[Any], told: object) -> Any:
    return None if told is None else words(told)

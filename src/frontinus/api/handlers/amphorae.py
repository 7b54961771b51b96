"""Amphorae, for administrators: their traffic, and what can be asked of one. Lists and shows are reading.py's.

What is asked is written down; the controller does it when it looks next."""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import Response

from frontinus.api.calls import Call, empty_response, json_response
from frontinus.api.changes import not_found
from frontinus.api.commits import commit
from frontinus.api.etags import require_match
from frontinus.api.fields import AMPHORA
from frontinus.api.rendering import Wire, render, render_statistics
from frontinus.api.requests import decode
from frontinus.api.settings import Immutability
from frontinus.api.written import Written
from frontinus.model import edits
from frontinus.model.enums import AmphoraStatus, Kind, ProvisioningStatus
from frontinus.model.errors import Conflict, Immutable, NotFound
from frontinus.model.ids import AmphoraId
from frontinus.model.tree import Amphora
from frontinus.store import amphorae, listing, trees
from frontinus.store.amphorae import Traffic
from frontinus.store.engine import Transaction


async def show_statistics(call: Call) -> Response:
    amphora_id = _id(call)

    def work(tx: Transaction) -> list[Traffic]:
        _require(tx, amphora_id)
        return amphorae.traffic_of(tx, amphora_id)

    found = await call.api.store.read(work)
    if not found:
        raise NotFound(Kind.AMPHORA, f"{amphora_id} has not reported any traffic")
    shown = [
        {
            **render_statistics(x.counters),
            "id": amphora_id,
            "listener_id": x.listener_id,
            "loadbalancer_id": x.load_balancer_id,
        }
        for x in found
    ]
    return json_response({"amphora_stats": shown})


async def push_configuration(call: Call) -> Response:
    """Have its configuration pushed again, whatever its receipt says."""
    _read_nothing(call)
    amphora_id, now = _id(call), call.api.clock()

    def work(tx: Transaction) -> Written:
        amphora = _require_staying(tx, amphora_id)
        require_match(call.headers, _render(tx, amphora_id))
        amphorae.request_push(tx, amphora_id, amphora.load_balancer_id, now)
        tree = trees.read_tree(tx, amphora.load_balancer_id)
        return Written(answer=empty_response(202), before=tree, after=tree, shown=_shown(tx, amphora_id))

    return await commit(call, work)


async def failover(call: Call) -> Response:
    """Have it replaced."""
    _read_nothing(call)
    amphora_id, now = _id(call), call.api.clock()

    def work(tx: Transaction) -> Written:
        amphora = _require_staying(tx, amphora_id)
        tree = trees.read_tree(tx, amphora.load_balancer_id, for_update=True)
        if tree is None:
            raise not_found(Kind.AMPHORA, amphora_id)
        load_balancer = tree.load_balancer
        if load_balancer.delete_requested:
            raise Immutable(Kind.LOAD_BALANCER, f"{load_balancer.id} is being deleted")
        settled = load_balancer.provisioning_status is ProvisioningStatus.ACTIVE
        if call.api.settings.immutable is Immutability.STRICT and not settled:
            raise Immutable(Kind.LOAD_BALANCER, f"{load_balancer.id} is {load_balancer.provisioning_status}")
        require_match(call.headers, _render(tx, amphora_id))
        after = edits.request_failover(tree, now)
        trees.write_tree(tx, tree, after)
        amphorae.request_replacement(tx, amphora_id, now)
        return Written(
            answer=empty_response(202), before=tree, after=after, replaced=(amphora_id,), shown=_shown(tx, amphora_id)
        )

    return await commit(call, work)


async def delete(call: Call) -> Response:
    amphora_id, now = _id(call), call.api.clock()

    def work(tx: Transaction) -> Written:
        amphora = _require(tx, amphora_id)
        if amphora.status is AmphoraStatus.ERROR:
            require_match(call.headers, _render(tx, amphora_id))
        if not amphorae.request_removal(tx, amphora_id, amphora.load_balancer_id, now):
            raise Conflict(Kind.AMPHORA, f"{amphora_id} is {amphora.status}; only one in ERROR can be deleted")
        return Written(answer=empty_response(204), shown=_shown(tx, amphora_id))

    return await commit(call, work)


def _shown(tx: Transaction, amphora_id: AmphoraId) -> Callable[[], Wire]:
    """What a dry run shows: the amphora as it is after what was written, read while it is."""
    shown = _render(tx, amphora_id)
    return lambda: {AMPHORA.item_key: shown}


def _render(tx: Transaction, amphora_id: AmphoraId) -> Wire:
    found = listing.get_amphora(tx, amphora_id)
    return {} if found is None else render(AMPHORA, found.value, found.references)


def _read_nothing(call: Call) -> None:
    """No body is needed; one that is sent must be JSON all the same."""
    if call.body:
        decode(call.body)


def _require(tx: Transaction, amphora_id: AmphoraId) -> Amphora:
    found = listing.get_amphora(tx, amphora_id)
    if found is None:
        raise not_found(Kind.AMPHORA, amphora_id)
    return found.value


def _require_staying(tx: Transaction, amphora_id: AmphoraId) -> Amphora:
    amphora = _require(tx, amphora_id)
    if amphora.status is AmphoraStatus.PENDING_DELETE:
        raise Immutable(Kind.AMPHORA, f"{amphora_id} is being removed")
    return amphora


def _id(call: Call) -> AmphoraId:
    return AmphoraId(call.params[Kind.AMPHORA])

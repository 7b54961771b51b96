"""The end of every write: the one transaction in which it is judged, written and answered.

What else must be decided together with it is decided here: the answer under an Idempotency-Key is kept in the same
transaction."""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import Response

from frontinus.api.calls import Call
from frontinus.api.idempotency import keep_answer
from frontinus.store.engine import Transaction


async def commit(call: Call, work: Callable[[Transaction], Response]) -> Response:
    """Run `work` in one write transaction and answer with what it returns. It may run more than once, and must be pure but
    for the transaction."""

    def whole(tx: Transaction) -> Response:
        response = work(tx)
        if call.reservation is not None:
            keep_answer(tx, call, call.reservation, response)
        return response

    return await call.api.store.transact(whole)

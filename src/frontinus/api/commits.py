"""The end of every write: the one transaction in which it is judged, written and answered.

What else must be decided together with it is decided here: the answer under an Idempotency-Key is kept in the same
transaction, and a dry run is undone. Handlers that write past this room cannot be tried (dry_run.py refuses it), and
their answer is kept a moment later (idempotency.py)."""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import Response

from frontinus.api.calls import Call
from frontinus.api.dry_run import rehearse
from frontinus.api.idempotency import keep_answer
from frontinus.api.written import Written
from frontinus.store.engine import Transaction


async def commit(call: Call, work: Callable[[Transaction], Written | Response]) -> Response:
    """Run `work` in one write transaction and answer with what it returns. It may run more than once, and must be pure but
    for the transaction. A bare response is that of a write in which amphorae have no part."""

    def whole(tx: Transaction) -> Written:
        result = work(tx)
        written = result if isinstance(result, Written) else Written(answer=result)
        if call.reservation is not None:
            keep_answer(tx, call, call.reservation, written.answer)
        return written

    if call.dry_run:
        return await rehearse(call, whole)
    return (await call.api.store.transact(whole)).answer

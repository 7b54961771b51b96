"""Ask what only controllers can tell, because only they have drivers: a row in the store, and a moment for the answer.

Next: store/previews.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from frontinus.api.calls import Call
from frontinus.model.cohorts import CohortName
from frontinus.model.ids import LoadBalancerId, new_id
from frontinus.model.offer_questions import OfferQuestion
from frontinus.model.previews import Question
from frontinus.store import previews
from frontinus.store.engine import Store, Transaction

_SHORTEST_POLL_S, _LONGEST_POLL_S = 0.005, 0.1

T = TypeVar("T")


async def ask(
    call: Call,
    store: Store,
    provider: str,
    question: Question | OfferQuestion,
    answer_to: Callable[[Transaction, str], T | None],
    *,
    cohort_of: Callable[[Transaction], CohortName | None],
    about: LoadBalancerId | None = None,
) -> T | None:
    """A controller's answer; None if there is none in time (`api.preview_wait`). The question is taken away whatever
    happens."""
    settings = call.api.settings
    question_id, now = new_id(), call.api.clock()

    def put(tx: Transaction) -> None:
        previews.ask(tx, question_id, settings.served_by(provider), cohort_of(tx), about, question, now)

    await store.transact(put)
    deadline = asyncio.get_running_loop().time() + settings.preview_wait.total_seconds()
    pause = _SHORTEST_POLL_S
    try:
        while True:
            answer = await store.read(lambda tx: answer_to(tx, question_id))
            left = deadline - asyncio.get_running_loop().time()
            if answer is not None or left <= 0:
                return answer
            await asyncio.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_POLL_S)
    finally:
        await store.transact(lambda tx: previews.forget(tx, question_id))

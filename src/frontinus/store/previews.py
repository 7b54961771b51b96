"""Questions of the API to the controllers of a cohort, and their answers: rows that live for seconds.

The question goes in, the controllers are woken, one of them claims it and writes the answer, and the API takes both away.
What nobody takes away (the process that asked was killed) is purged. Most questions are about previews; of third-party providers
it is asked what they take (model/offer_questions.py)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Generic, TypeVar

import msgspec
from sqlalchemy import and_, bindparam, delete, insert, or_, select, update

from frontinus.model.cohorts import CohortName
from frontinus.model.ids import ControllerId, LoadBalancerId
from frontinus.model.offer_questions import OfferAnswer, OfferQuestion
from frontinus.model.previews import Answer, Question
from frontinus.store.engine import Transaction
from frontinus.store.rows import to_json, to_microseconds
from frontinus.store.schema import controller, preview
from frontinus.store.statement import Statement, Value

STALE_AFTER = timedelta(minutes=1)
"""No API waits so long for an answer."""

_t = preview.c
_COLUMNS = ("id", "provider", "driver", "driver_version", "load_balancer_id", "question", "asked_at")
_SERVED = or_(
    and_(_t.driver == bindparam("which_driver"), _t.driver_version == bindparam("which_version")),
    # Nobody's: asked by a version that knew no cohorts.
    and_(
        _t.driver.is_(None),
        _t.provider.in_(select(controller.c.provider).where(controller.c.driver == bindparam("which_driver"))),
    ),
)

_INSERT = Statement(insert(preview).values({name: bindparam(name) for name in _COLUMNS}))
_SELECT_OPEN = Statement(
    select(_t.id, _t.question)
    .where(_t.claimed_by.is_(None), _t.asked_at >= bindparam("oldest"), _SERVED)
    .order_by(_t.asked_at)
    .limit(bindparam("most"))
)
_CLAIM = Statement(
    update(preview).where(_t.id == bindparam("which"), _t.claimed_by.is_(None)).values(claimed_by=bindparam("owner"))
)
_ANSWER = Statement(
    update(preview)
    .where(_t.id == bindparam("which"), _t.claimed_by == bindparam("owner"))
    .values(answer=bindparam("text"))
)
_SELECT_ANSWER = Statement(select(_t.answer).where(_t.id == bindparam("which")))
_DELETE = Statement(delete(preview).where(_t.id == bindparam("which")))
_PURGE = Statement(delete(preview).where(_t.asked_at < bindparam("oldest")))

_load_question = msgspec.json.Decoder(Question).decode
_load_answer = msgspec.json.Decoder(Answer).decode
_load_offer_question = msgspec.json.Decoder(OfferQuestion).decode
_load_offer_answer = msgspec.json.Decoder(OfferAnswer).decode

_Q = TypeVar("_Q")


class Claimed(msgspec.Struct, Generic[_Q], frozen=True):
    """A question that is this controller's to answer."""

    id: str
    question: _Q


def ask(
    tx: Transaction,
    question_id: str,
    provider: str,
    cohort: CohortName | None,
    load_balancer_id: LoadBalancerId | None,
    question: Question | OfferQuestion,
    now: datetime,
) -> None:
    """Put a question to the controllers of a cohort, and wake them; without one to all that serve the provider."""
    asked: dict[str, Value] = {
        "id": question_id,
        "provider": provider,
        "driver": None if cohort is None else cohort.driver,
        "driver_version": None if cohort is None else cohort.driver_version,
        "load_balancer_id": load_balancer_id or "",
    }
    tx.run(_INSERT, {**asked, "question": to_json(question), "asked_at": to_microseconds(now)})
    tx.wake()


def is_any_open(tx: Transaction, cohort: CohortName, now: datetime) -> bool:
    """Whether there is something to claim; a read, for the turn after turn in which there is not."""
    return tx.row(_SELECT_OPEN, {**_open(cohort, now), "most": 1}) is not None


def claim(
    tx: Transaction, owner: ControllerId, cohort: CohortName, now: datetime, limit: int
) -> list[Claimed[Question]]:
    """Up to `limit` open questions for this cohort; each goes to one controller only."""
    return [Claimed(x, _load_question(text)) for x, text in _claim(tx, owner, cohort, now, limit)]


def claim_about_offers(
    tx: Transaction, owner: ControllerId, cohort: CohortName, now: datetime, limit: int
) -> list[Claimed[OfferQuestion]]:
    """The same for the process of a third-party provider. What is no question about an offer has neither data in it."""
    return [Claimed(x, _load_offer_question(text)) for x, text in _claim(tx, owner, cohort, now, limit)]


def _claim(
    tx: Transaction, owner: ControllerId, cohort: CohortName, now: datetime, limit: int
) -> list[tuple[str, str]]:
    found = tx.rows(_SELECT_OPEN, {**_open(cohort, now), "most": limit})
    return [(x, text) for x, text in found if tx.run(_CLAIM, {"which": x, "owner": owner}) == 1]


def answer(tx: Transaction, question_id: str, owner: ControllerId, given: Answer | OfferAnswer) -> None:
    """Answer a claimed question. Nothing happens if nobody waits for it any more."""
    tx.run(_ANSWER, {"which": question_id, "owner": owner, "text": to_json(given)})


def answer_to(tx: Transaction, question_id: str) -> Answer | None:
    """The answer, if there is one yet."""
    row = tx.row(_SELECT_ANSWER, {"which": question_id})
    return None if row is None or row[0] is None else _load_answer(row[0])


def offer_answer_to(tx: Transaction, question_id: str) -> OfferAnswer | None:
    """The same, to a question about an offer."""
    row = tx.row(_SELECT_ANSWER, {"which": question_id})
    return None if row is None or row[0] is None else _load_offer_answer(row[0])


def forget(tx: Transaction, question_id: str) -> None:
    tx.run(_DELETE, {"which": question_id})


def purge(tx: Transaction, now: datetime) -> int:
    """Forget questions whose asker must be gone; how many."""
    return tx.run(_PURGE, {"oldest": to_microseconds(now - STALE_AFTER)})


def _open(cohort: CohortName, now: datetime) -> dict[str, Value]:
    which: dict[str, Value] = {"which_driver": cohort.driver, "which_version": cohort.driver_version}
    return {**which, "oldest": to_microseconds(now - STALE_AFTER)}

"""`?dry_run=true`: a write as it would be, with everything that judges it, and nothing written.

The handler does what it always does; commits.py lets its transaction fail at the last moment. What amphorae would make of
it only a controller can say, because only controllers have drivers: it is asked through the store and has a moment to
answer. Why so: docs/design/0006-dry-runs.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, TypeVar

import msgspec
from starlette.responses import Response

from frontinus.api.asking import ask
from frontinus.api.calls import Call, json_response
from frontinus.api.errors import HttpError
from frontinus.api.placing import capabilities_for, cohort_of
from frontinus.api.rendering import Wire
from frontinus.api.wire_types import Faults
from frontinus.api.written import Written
from frontinus.model.certificates import UNREADABLE, secret_uses
from frontinus.model.errors import Invalid
from frontinus.model.previews import Answer, Question, strongest
from frontinus.store import previews
from frontinus.store.engine import Store, Transaction, Wakeups

ARGUMENT = "dry_run"

_VALUES = {"true": True, "false": False}

T = TypeVar("T")


def is_asked_for(value: str) -> bool:
    """Raises Invalid for what is neither true nor false: a dry run that is mistaken for a wish does harm."""
    found = _VALUES.get(value.strip().lower())
    if found is None:
        raise Invalid(ARGUMENT, f"must be true or false, not {value[:80]!r}")
    return found


class ReadOnlyStore(Store):
    """The store of a dry run: what a handler writes past commits.py is refused, and not done."""

    def __init__(self, real: Store) -> None:
        self.real = real

    async def transact(self, work: Callable[[Transaction], T]) -> NoReturn:
        raise HttpError(501, f"{ARGUMENT}: this operation cannot be tried; nothing was done")

    async def read(self, work: Callable[[Transaction], T]) -> T:
        return await self.real.read(work)

    def wakeups(self) -> Wakeups:
        return self.real.wakeups()


class _Undone(Exception):
    """Ends a transaction that was only tried. Carries what it came to."""

    def __init__(self, written: Written) -> None:
        super().__init__()
        self.written = written


def real_store(call: Call) -> Store:
    """The one that can be written, also in a dry run: for questions to controllers, and what is undone."""
    store = call.api.store
    return store.real if isinstance(store, ReadOnlyStore) else store


async def rehearse(call: Call, work: Callable[[Transaction], Written]) -> Response:
    """Run `work` as if it were meant, undo it, and say what it would have come to."""
    real = real_store(call)

    def undone(tx: Transaction) -> NoReturn:
        raise _Undone(work(tx))

    try:
        await real.transact(undone)
    except _Undone as end:
        written = end.written
    body: Wire = msgspec.json.decode(written.answer.body) if written.answer.body else dict(written.shown())
    body[ARGUMENT] = await _foresee(call, written, real)
    return json_response(body)


async def _foresee(call: Call, written: Written, store: Store) -> Wire:
    if written.after is None:
        return _told("none", "amphorae have no part in it", Answer())
    question = Question(before=written.before, after=written.after, replaced=written.replaced)
    load_balancer = written.after.load_balancer
    if (await store.read(lambda tx: capabilities_for(tx, call.api, load_balancer))).foreign is not None:
        return _told("none", f"the provider {load_balancer.provider} cannot be asked beforehand", Answer())
    answer = await ask(
        call,
        store,
        load_balancer.provider,
        question,
        previews.answer_to,
        cohort_of=lambda tx: cohort_of(tx, call.api, load_balancer),
        about=load_balancer.id,
    )
    if answer is None:
        wait = call.api.settings.preview_wait.total_seconds()
        return _told("unavailable", f"it is valid, but no controller has told within {wait:g} s what it would do", None)
    if (told := _not_let_in(written, answer)) is not None:
        return _told("complete", told, answer)
    if not answer.amphorae:
        return _told("complete", "nothing would change on the amphorae: see faults", answer)
    return _told("complete", None, answer)


def _not_let_in(written: Written, answer: Answer) -> str | None:
    """That the controllers may not read yet what only the request itself lets them read; the user may."""
    before = () if written.before is None else secret_uses(written.before)
    after = () if written.after is None else secret_uses(written.after)
    named = {x.reference for x in after} - {x.reference for x in before}
    unread = (x for x in answer.faults if x.code == UNREADABLE)
    if not any(reference in x.message for x in unread for reference in named):
        return None
    return "a secret that only the request itself lets amphorae have could not be read for this: see faults"


def _told(preview: str, reason: str | None, answer: Answer | None) -> Wire:
    faults = Faults()
    amphorae = () if answer is None else answer.amphorae
    return {
        "preview": preview,
        "reason": reason,
        "action": None if answer is None else strongest(x.preview.action for x in amphorae),
        "amphorae": [
            {
                "amphora_id": x.amphora_id,
                "role": x.role,
                "action": x.preview.action,
                "reason": x.preview.reason or None,
                "commands": x.preview.commands,
                "diff": x.preview.diff,
            }
            for x in amphorae
        ],
        "faults": [] if answer is None else [faults.render(x) for x in answer.faults],
    }


DRY_RUN_SCHEMA: Wire = {
    "type": "object",
    "description": "Only with dry_run=true: nothing was done; this is what would be.",
    "properties": {
        "preview": {"type": "string", "enum": ["complete", "unavailable", "none"]},
        "reason": {"type": ["string", "null"]},
        "action": {"enum": ["unchanged", "runtime", "reload", "stop", "start", "replace", None]},
        "amphorae": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "amphora_id": {"type": ["string", "null"]},
                    "role": {"type": "string"},
                    "action": {"enum": ["unchanged", "runtime", "reload", "stop", "start", "replace"]},
                    "reason": {"type": ["string", "null"]},
                    "commands": {"type": "array", "items": {"type": "string"}},
                    "diff": {"type": "string"},
                },
            },
        },
        "faults": {"type": "array", "items": Faults().schema()},
    },
    "required": ["preview", "reason", "action", "amphorae", "faults"],
}

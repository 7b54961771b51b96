"""Notice what changes in the secret store, and what in it is about to end.

A secret that was stored, replaced or deleted has every load balancer looked at that refers to it: what it renders has
another digest then, and is pushed; what waited for it goes on. One poll of the store and no message is trusted: a change
while no controller ran is found by the first look, which names everything (of what was adopted and not touched since, the next change is); what the store does not tell, such as that it
was away and is as before, when a load balancer that waits for a secret is looked at again. Next: store/secrets.py."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import NamedTuple

import structlog

from frontinus.controller.draws import Draws
from frontinus.controller.hands import Hands
from frontinus.controller.secret_consumers import SecretConsumers
from frontinus.model.certificates import UNREADABLE
from frontinus.model.errors import CallerError, WorldError
from frontinus.model.ids import ProjectId
from frontinus.store import secrets

log = structlog.get_logger()


READ_AGAIN = timedelta(days=7)
"""For so long it is remembered when a certificate ends, unless the store tells that it changed: every controller wants to know
of every one, and reading it is several questions to some stores."""

AGAIN_EVERY = timedelta(minutes=5)
"""What waits for a secret that cannot be read is tried again so often, whether the store tells of a change or not."""


class _Known(NamedTuple):
    """When a certificate ends, as it was read at some time."""

    expires_at: datetime | None
    read_at: datetime


class SecretWatch:
    """One per controller. One owner: its own loop."""

    def __init__(self, hands: Hands) -> None:
        self._hands = hands
        self._has_looked = False
        self._looked_at: datetime | None = None
        self._tried_at: datetime | None = None
        self._asked_at: datetime | None = None
        self._known: dict[str, _Known] = {}
        self._draws = Draws()
        self._consumers = SecretConsumers(hands, self._draws)

    def among(self, controllers: int) -> None:
        """So many watch, this one included."""
        self._draws.among(controllers)

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            try:
                await self.look()
                await self.try_again()
                await self.warn()
                await self._consumers.tend()
            except WorldError as trouble:
                log.warning("secrets not watched", reason=str(trouble))
            except Exception:  # the loop protects its next turn
                log.exception("secrets not watched")
            await asyncio.sleep(self._hands.settings.secret_watch_interval.total_seconds())

    async def look(self) -> int:
        """Wake the load balancers whose secrets changed since the last look; how many."""
        if not self._is_time_to_look():
            return 0
        changed = await self._hands.secret.changes()
        is_first, self._has_looked = not self._has_looked, True
        if not changed:
            return 0
        for reference in changed:
            self._known.pop(reference, None)
        now = self._hands.now()
        try:
            # The first look names everything, also what is as it was when it was adopted: that shall run until something changes.
            count = await self._hands.store.transact(
                lambda tx: secrets.wake_users(tx, changed, now, spare_adopted=is_first)
            )
        except (
            BaseException
        ):  # also when cancelled: the driver has told us, and will not again; begin anew with everything
            self._hands.secret.forget_changes()
            self._asked_at = None
            self._has_looked = False
            raise
        if count:
            log.info("secrets changed", load_balancers=count)
        return count

    def _is_time_to_look(self) -> bool:
        """Each controller sees what changed since it last looked itself, so that any of them may be the first to look."""
        every = self._hands.secret.watch_interval
        if not every:
            return True
        now = self._hands.now()
        if self._asked_at is not None and timedelta(0) <= now - self._asked_at < every:
            return False
        is_first, self._asked_at = self._asked_at is None, now
        return is_first or self._draws.is_drawn()

    async def try_again(self) -> int:
        """Now and then, wake the load balancers that wait for a secret; how many."""
        now = self._hands.now()
        if self._tried_at is not None and now - self._tried_at < AGAIN_EVERY:
            return 0
        is_first, self._tried_at = self._tried_at is None, now
        if is_first or not self._draws.is_drawn():  # the first look wakes everybody
            return 0
        return await self._hands.store.transact(lambda tx: secrets.wake_faulty(tx, UNREADABLE, now))

    async def warn(self) -> int:
        """Now and then: warn of certificates in use that end soon, or have ended, and count all by how soon they end; how
        many warnings there are."""
        now, settings = self._hands.now(), self._hands.settings
        if self._looked_at is not None and now - self._looked_at < settings.expiry_look_interval:
            return 0
        self._looked_at = now
        ending = 0
        counts = dict.fromkeys((*(word for _, word in _ENDS), "later", "unknown", "unreadable"), 0)
        soonest: datetime | None = None
        known = await self._hands.store.read(secrets.users)
        for reference, held_by in known.items():
            user = next((x for x in held_by if x.field in _CERTIFICATE_FIELDS), None)
            if user is None:
                continue
            await asyncio.sleep(0)  # reading one takes milliseconds of its own; leases are to be kept meanwhile
            try:
                expires_at = await self._end_of(reference, user.project_id)
            except (CallerError, WorldError):
                counts["unreadable"] += 1
                continue  # whoever needs it is told by a fault
            counts[_ends(expires_at, now)] += 1
            if expires_at is not None and (soonest is None or expires_at < soonest):
                soonest = expires_at
            if expires_at is not None and expires_at - now < settings.expiry_warning:
                ending += 1
                log.warning(
                    "certificate ends soon" if expires_at > now else "certificate has ended",
                    reference=reference,
                    expires_at=expires_at.isoformat(),
                    project_id=user.project_id,
                    object_kind=user.kind.value,
                    object_id=user.id,
                    load_balancer_id=user.load_balancer_id,
                )
        self._known = {x: y for x, y in self._known.items() if x in known}
        for word, count in counts.items():
            self._hands.metrics.certificates.labels(word).set(count)
        self._hands.metrics.certificate_soonest_end.set(float("inf") if soonest is None else soonest.timestamp())
        return ending

    async def _end_of(self, reference: str, project_id: ProjectId) -> datetime | None:
        """When the certificate ends. Raises Invalid and Retry."""
        now, before = self._hands.now(), self._known.get(reference)
        if before is not None and timedelta(0) <= now - before.read_at < READ_AGAIN:
            return before.expires_at
        self._known.pop(reference, None)
        found = await self._hands.secret.certificate(reference, project_id)
        self._known[reference] = _Known(found.expires_at, now)
        return found.expires_at


def _ends(expires_at: datetime | None, now: datetime) -> str:
    """The metric's word for how soon a certificate ends."""
    if expires_at is None:
        return "unknown"
    return next((word for within, word in _ENDS if expires_at - now <= within), "later")


_ENDS = (
    (timedelta(0), "ended"),
    (timedelta(days=7), "7d"),
    (timedelta(days=30), "30d"),
    (timedelta(days=90), "90d"),
)
_CERTIFICATE_FIELDS = frozenset({"default_tls_container_ref", "sni_container_refs", "tls_container_ref"})

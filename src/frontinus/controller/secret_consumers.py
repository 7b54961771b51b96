"""Keep the consumers that a secret store records the same as the uses that our store does.

The API registers a consumer when a user names a secret; here it is taken away when nobody uses the secret any more, and
put back where it is missing. Both records are looked at and no message is trusted, so that a death between any two steps
leaves nothing behind: the next look of any controller sees the difference. Of many controllers few look each time, since each
look lists everything; who sees what nobody seems to use looks once more, and then lets go of it. Next: secret_watch.py, whose loop calls it."""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog

from frontinus.controller.draws import Draws
from frontinus.controller.hands import Hands
from frontinus.model.certificates import SecretConsumer
from frontinus.model.errors import CallerError
from frontinus.store import secrets

log = structlog.get_logger()

EVERY = timedelta(minutes=1)
"""How often it looks, and how long a consumer is left alone that nobody seems to use: the request that registered it may
still be under way."""


class SecretConsumers:
    def __init__(self, hands: Hands, draws: Draws) -> None:
        self._hands = hands
        self._draws = draws
        self._looked_at: datetime | None = None
        self._idle: frozenset[SecretConsumer] = frozenset()

    async def tend(self) -> None:
        """Now and then, where the secret store keeps account. Raises Retry when it cannot be asked."""
        now, driver = self._hands.now(), self._hands.secret
        if not driver.keeps_consumers or (self._looked_at is not None and now - self._looked_at < EVERY):
            return
        self._looked_at = now
        if not self._idle and not self._draws.is_drawn():
            return
        registered = {self._comparable(x): x for x in await driver.list_consumers()}
        # Read after the list: what is registered now and not used yet waits for the next look.
        used = await self._used()
        await self._register([x for key, x in used.items() if key not in registered])
        idle = frozenset(registered.keys() - used.keys())
        gone = idle & self._idle
        self._idle = idle - gone
        for key in gone:
            await driver.unregister(registered[key])
            log.info("secret let go of", reference=key.reference, load_balancer_id=key.load_balancer_id)
        if gone:
            # Somebody may have named it again meanwhile.
            await self._register([x for key, x in (await self._used()).items() if key in gone])

    async def _used(self) -> dict[SecretConsumer, SecretConsumer]:
        known = await self._hands.store.read(secrets.users)
        found = (
            SecretConsumer(reference=reference, project_id=x.project_id, load_balancer_id=x.load_balancer_id)
            for reference, users in known.items()
            for x in users
        )
        return {self._comparable(x): x for x in found}

    async def _register(self, missing: list[SecretConsumer]) -> None:
        for consumer in missing:
            try:
                await self._hands.secret.register(consumer)
            except CallerError:
                pass  # it cannot be read: whoever needs it is told by a fault

    def _comparable(self, consumer: SecretConsumer) -> SecretConsumer:
        return SecretConsumer(
            reference=self._hands.secret.canonical(consumer.reference),
            project_id=consumer.project_id,
            load_balancer_id=consumer.load_balancer_id,
        )

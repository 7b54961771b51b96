"""Be a controller of one's cohort: register, say that one lives, take over what nobody serves, and know when to leave.

Serves no load balancer; loop.py and provider_loop.py do, and ask here whether this process is still needed. Next: store/cohorts.py."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial

import structlog

from frontinus.controller.attendance import Attendance
from frontinus.model.capabilities import Capabilities
from frontinus.model.cohorts import Cohort, CohortName, CohortState
from frontinus.model.errors import Conflict
from frontinus.model.ids import ControllerId, new_id
from frontinus.store import cohorts, controllers
from frontinus.store.engine import Store, Transaction

log = structlog.get_logger()


def digest_of(configuration: Mapping[str, str]) -> str:
    """One digest of the digests of single settings."""
    text = "\n".join(f"{key} {value}" for key, value in sorted(configuration.items()))
    return hashlib.sha256(text.encode()).hexdigest()


async def work_as_member(work: asyncio.Task[None], keep_alive: asyncio.Task[None]) -> None:
    """Until the work ends, or the keep-alive, which ends only by an error: who is no member must not go on. Raises it."""
    await asyncio.wait((work, keep_alive), return_when=asyncio.FIRST_COMPLETED)
    for task in (keep_alive, work):
        if task.done():
            task.result()


class Membership:
    """One per controller. One owner: its keep-alive loop."""

    def __init__(
        self,
        store: Store,
        controller_id: ControllerId,
        cohort: CohortName,
        providers: tuple[str, ...],
        capabilities: Capabilities,
        now: Callable[[], datetime],
        *,
        configuration: Mapping[str, str] | None = None,
        alone: bool = False,
        attendance: Attendance | None = None,
    ) -> None:
        """`configuration` has a digest of each setting that all of the cohort must share. `alone`: nobody else can work on
        this store, as where it is a file of this process."""
        self._store = store
        self._cohort = cohort
        self._capabilities = capabilities
        self._now = now
        self._configuration = dict(configuration or {})
        self._alone = alone
        self.attendance = attendance or Attendance()
        self._holds_back = False
        # One row for each provider name; the first carries the controller's own id, which is the owner of leases.
        self._registrations = {
            name: controller_id if number == 0 else ControllerId(new_id()) for number, name in enumerate(providers)
        }
        self._state: CohortState | None = None
        self.controllers = 1
        """Of the cohort, alive, this one included; as of the last look."""

    async def register(self) -> None:
        """Publish what this controller's driver can do, under each provider name that it serves, so that the API knows
        what to accept; then take over what was left behind. Raises Conflict when the others of the cohort have other
        settings."""
        now = self._now()
        records = [
            controllers.Controller(
                id=registration,
                driver=self._cohort.driver,
                driver_version=self._cohort.driver_version,
                host=socket.gethostname(),
                pid=os.getpid(),
                provider=provider,
                capabilities=self._capabilities,
                started_at=now,
                seen_at=now,
                config_digest=digest_of(self._configuration) if self._configuration else None,
                configuration=self._configuration,
            )
            for provider, registration in self._registrations.items()
        ]

        def write(tx: Transaction) -> list[Cohort]:
            if self._alone:
                controllers.stop_others(tx)
            for record in records:
                controllers.register(tx, record)
            if self._alone:
                cohorts.take_all(tx, self._cohort, now)
            return cohorts.all_cohorts(tx)

        self.attendance.look(await self._store.transact(write), now)
        await self._take_over(now)

    async def look(self) -> bool:
        """Say that this controller lives and see how its cohort stands; whether it is done: it drains, and nothing is left.
        Raises NotFound if somebody forgot a silent controller: register again."""
        now, mine = self._now(), self._cohort

        def say_alive(tx: Transaction) -> list[Cohort]:
            for registration in self._registrations.values():
                controllers.keep_alive(tx, registration, now)
            return cohorts.all_cohorts(tx)

        known = await self._store.transact(say_alive)
        self.attendance.look(known, now)
        witnessed = self.attendance.of(known, now)
        standing = await self._store.read(partial(cohorts.standing, mine=mine, now=now, known=witnessed))
        if standing is None:
            return False
        self.controllers = max(standing.controllers, 1)
        if standing.left_behind:
            await self._take_over(now)
        if standing.holds_back and not self._holds_back:
            log.warning(
                "load balancers without a controller wait for their own, or for the end of a rollout", taker=str(mine)
            )
        self._holds_back = standing.holds_back
        if standing.state is not self._state:
            if standing.state is CohortState.DRAINING or self._state is not None:
                log.info("cohort changed", cohort=str(mine), state=standing.state.value)
            self._state = standing.state
        return standing.is_done

    async def register_again(self) -> None:
        """After `look` has raised NotFound: this process was stopped for long, or the database restored. Whatever goes wrong
        is logged, and the next look finds it again; only Conflict is raised: others serve with other settings by now."""
        try:
            await self.register()
        except Conflict:
            raise
        except Exception:  # the loop that asked must live: without it a working controller counts as dead
            log.exception("controller could not be registered again", cohort=str(self._cohort))

    async def leave(self) -> None:
        """Say goodbye. What the driver can do stays known."""

        def write(tx: Transaction) -> None:
            for registration in self._registrations.values():
                controllers.unregister(tx, registration)

        await self._store.transact(write)

    async def _take_over(self, now: datetime) -> None:
        def take(tx: Transaction) -> int:
            known = self.attendance.of(cohorts.all_cohorts(tx), now)
            return cohorts.take_over(tx, self._cohort, now, known)

        taken = 0
        while part := await self._store.transact(take):
            taken += part
        if taken:
            log.info("load balancers taken over", cohort=str(self._cohort), count=taken)

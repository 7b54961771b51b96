"""`frontinus ca …`: the authority that vouches for controllers and amphorae, and its replacement by another one.

Works beside whatever runs: controllers see each phase at once and carry it to the amphorae, which the store tells."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from frontinus.cli.output import complain, in_words, say, settings_or_exit
from frontinus.drivers.amphora.agent.authority import Authority, Phase
from frontinus.drivers.amphora.agent.octavia_authority import TakenOver
from frontinus.drivers.amphora.agent.settings import AgentDriverSettings
from frontinus.main import check as check_settings
from frontinus.model.errors import FrontinusError, Invalid, NotFound
from frontinus.settings import Settings
from frontinus.store import inventory, rollouts
from frontinus.store.engine import Store

LOOK_S = 0.5

WHAT_NEXT = {
    Phase.STEADY: "A new authority is made, and trusted beside the one that there is.",
    Phase.INTRODUCED: "The new authority issues every certificate from now on; the old one is still trusted.",
    Phase.IN_USE: "The old authority is trusted no more.",
}
"""What the step out of each phase does."""

Work = Callable[[Authority, "Progress"], Awaitable[int]]

HELD = (
    "a rollout brings the authority's phase to the amphorae, in waves: wait for its end (`frontinus rollout watch`), or go on "
    "with `frontinus rollout start --authority`"
)


class Progress:
    """How far the amphorae have come, as the store tells."""

    def __init__(self, store: Store, driver: str, kept: str) -> None:
        self._store = store
        self._driver = driver
        self._kept = kept

    async def look(self, digest: str) -> tuple[int, int]:
        """How many amphorae there are, and how many of them have not what this digest says."""
        return await self._store.read(lambda tx: inventory.count_identities(tx, self._driver, digest, kept=self._kept))

    async def held(self) -> bool:
        """Whether a rollout says when amphorae get it."""
        return await self._store.read(lambda tx: rollouts.holds_authority(tx, self._driver))


def run(file: Path | None, overrides: dict[str, object], work: Work) -> int:
    """Exit status of the work: 0; 1 when something is in the way, 2 for what can never be."""
    settings = settings_or_exit(file, overrides)
    try:
        return asyncio.run(_with_store(work, authority_of(settings), settings))
    except Invalid as error:
        complain(str(error))
        return 2
    except (FrontinusError, OSError, ValueError) as error:
        complain(in_words(error))
        return 1


async def _with_store(work: Work, authority: Authority, settings: Settings) -> int:
    # One store in one loop: connections to a server belong to the loop that opened them.
    store = Store.open(settings.database_url, connections=1)
    try:
        return await work(authority, progress_of(store, settings, authority))
    finally:
        await store.close()


def progress_of(store: Store, settings: Settings, authority: Authority) -> Progress:
    octavia = TakenOver(authority.directory)()
    return Progress(store, settings.drivers.amphora, "" if octavia is None else octavia.digest)


def authority_of(settings: Settings) -> Authority:
    """The one of these settings. Raises Invalid where the driver has none of ours, NotFound where nobody has made it yet,
    ValueError where what is there is none."""
    found = check_settings(settings).get(settings.drivers.amphora)
    if not isinstance(found, AgentDriverSettings):
        raise Invalid("drivers.amphora", f"{settings.drivers.amphora!r} has no authority of ours")
    directory = found.authority_directory
    if not directory.is_dir():
        # Made by the first controller: not by a slip in --state-dir.
        raise NotFound(
            "authority", f"there is none yet in {directory}: it is made when `frontinus up` or a controller starts"
        )
    return Authority.open(directory)


async def show(authority: Authority, progress: Progress) -> int:
    """Say who is trusted, who issues, and how many amphorae know it."""
    for certificate in authority.trusted:
        role = "issues and is trusted" if certificate == authority.issuing else "is trusted"
        say(f"{_fingerprint(certificate)}  until {certificate.not_valid_after_utc.astimezone(UTC):%Y-%m-%d}  {role}")
    every, others = await progress.look(authority.digest)
    say(f"phase: {authority.phase}; {every - others} of {every} amphorae have what it says")
    if await progress.held():
        say(HELD)
    return 0


def rotate(timeout: float, *, one_step: bool) -> Work:
    """Replace the authority: three steps, before each of which every amphora has reached the one before. What was begun
    is gone on with."""

    async def work(authority: Authority, progress: Progress) -> int:
        while True:
            if not await _all_reached(authority, progress, timeout):
                return 1
            say(WHAT_NEXT[authority.phase])
            phase = authority.advance()
            if one_step:
                return 0
            if phase is Phase.STEADY:
                if not await _all_reached(authority, progress, timeout):
                    return 1
                say(f"Done: {_fingerprint(authority.issuing)} is the authority.")
                return 0

    return work


async def _all_reached(authority: Authority, progress: Progress, timeout: float) -> bool:
    """Whether every amphora has what the phase says, at the latest after this many seconds, and no rollout is what brings
    it to them; if not, that was said."""
    deadline = time.monotonic() + timeout
    told = None
    while True:
        if await progress.held():
            complain(HELD)
            return False
        every, others = await progress.look(authority.digest)
        if not others:
            return True
        if others != told:
            say(f"  {every - others} of {every} amphorae")
            told = others
        if time.monotonic() > deadline:
            complain(
                f"{others} amphorae have not reached phase {authority.phase!s}: see the controllers' logs for why. Nobody "
                "is refused in this phase; run the command again to go on"
            )
            return False
        await asyncio.sleep(LOOK_S)


def _fingerprint(certificate: x509.Certificate) -> str:
    return "sha256:" + certificate.fingerprint(hashes.SHA256()).hex()[:32]

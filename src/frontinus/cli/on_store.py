"""Commands that work on the database alone, beside running processes or without any."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from frontinus.cli.output import complain, in_words, settings_or_exit
from frontinus.model.errors import FrontinusError, Invalid
from frontinus.store.engine import Store


def run(file: Path | None, overrides: dict[str, object], work: Callable[[Store], Awaitable[None]]) -> int:
    """Exit status: 0 when it is done, 1 when that could not be, which has been said, 2 for wrong settings or values."""
    settings = settings_or_exit(file, overrides)
    if not settings.database and not (settings.state_dir / "frontinus.sqlite").exists():
        complain(f"{settings.state_dir} holds no database; start `frontinus up` once, or name another --state-dir")
        return 1

    async def whole() -> None:
        store = Store.open(settings.database_url)
        try:
            await work(store)
        finally:
            await store.close()

    try:
        asyncio.run(whole())
    except Invalid as error:
        complain(str(error))
        return 2
    except (FrontinusError, OSError) as error:
        complain(in_words(error))
        return 1
    return 0

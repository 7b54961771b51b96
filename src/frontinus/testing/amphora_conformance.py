"""Examines an amphora driver against drivers/amphora/interface.py. How to use it: exam.py.

Rendering, boot files and decoding are examined without an amphora (amphora_on_paper.py); the rest needs a bench that can
start one (amphora_in_place.py). `frontinus driver check` brings such a bench for whatever runs in a place of this machine."""

from __future__ import annotations

from frontinus.testing import amphora_in_place, amphora_on_paper
from frontinus.testing.amphora_bench import AmphoraBench
from frontinus.testing.exam import Report, hold

__all__ = ["CHECKS", "AmphoraBench", "examine"]

CHECKS = (*amphora_on_paper.CHECKS, *amphora_in_place.CHECKS)


async def examine(bench: AmphoraBench, *, limit: float = 60.0) -> Report:
    """Run every check; each may take `limit` seconds."""
    return await hold(CHECKS, bench, limit)

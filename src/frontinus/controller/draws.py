"""Whose turn it is to look at what all controllers could look at, without their having to agree. Pure but for the dice.

Each throws for itself whenever its time has come: together they look so often as a few would, however many there are, and
one that dies is missed by nobody. Witnesses draw spans of ids instead (witness.py). Next: secret_watch.py."""

from __future__ import annotations

import random

LOOKS = 2.0
"""So many of them look in the mean each time: none does once in seven times, and then it is the next time."""


class Draws:
    """Of one loop, which is its owner."""

    def __init__(self) -> None:
        self._controllers = 1

    def among(self, controllers: int) -> None:
        """So many draw, this one included."""
        self._controllers = controllers

    def is_drawn(self) -> bool:
        """Whether it is this one's turn; of few it always is."""
        return random.random() * self._controllers < LOOKS

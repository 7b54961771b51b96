"""What an examination of an installation finds: how it stands with one thing, and what to do. Values only."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Grade(StrEnum):
    OK = "ok"
    WARNING = "warning"
    """It works, and will not for ever or not as it should."""
    TROUBLE = "trouble"
    """Something does not work because of it."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """`told` is what was seen; `advice` what to do about it, empty where nothing is to be done."""

    subject: str
    grade: Grade
    told: str
    advice: str = ""


def fine(subject: str, told: str) -> Finding:
    return Finding(subject=subject, grade=Grade.OK, told=told)


def warning(subject: str, told: str, advice: str) -> Finding:
    return Finding(subject=subject, grade=Grade.WARNING, told=told, advice=advice)


def trouble(subject: str, told: str, advice: str) -> Finding:
    return Finding(subject=subject, grade=Grade.TROUBLE, told=told, advice=advice)

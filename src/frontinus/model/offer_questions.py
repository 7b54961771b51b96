"""Whether a third-party provider takes the data of a flavor or an availability zone: the API's question, the driver's answer.

Values only; they travel through the store as JSON, in rows of store/previews.py."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

OfferData = Mapping[str, Any]
"""What is in a profile, decoded. Its words are the provider's."""


class Offered(msgspec.Struct, frozen=True, kw_only=True):
    """What the flavor and the zone of a load balancer stand for; empty where it has none."""

    flavor: OfferData = {}
    zone: OfferData = {}


class OfferQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two is asked about."""

    flavor: dict[str, Any] | None = None
    zone: dict[str, Any] | None = None


class Verdict(StrEnum):
    TAKEN = "taken"
    UNSUPPORTED = "unsupported"
    TROUBLE = "trouble"
    """The driver could not say."""


class OfferAnswer(msgspec.Struct, frozen=True, kw_only=True):
    verdict: Verdict
    words: str = ""
    """The driver's own, for the user."""

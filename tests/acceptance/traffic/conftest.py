"""Proofs lie in modules that pytest does not collect; this lets their assertions say what they saw all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.register_assert_rewrite(
    *(f"tests.acceptance.traffic.{file.stem}" for file in Path(__file__).parent.glob("*.py"))
)

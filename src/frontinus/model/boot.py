"""What a place must hold before the agent in it starts. Made by an amphora driver, laid down by a compute driver."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class BootFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Relative path -> content; every file is private (0600).

    `{place}` in a file that ends in .conf stands for the absolute directory where the compute driver puts them."""

    files: Mapping[str, bytes]

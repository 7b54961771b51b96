"""What HAProxy does within the memory that a flavor gives it (`max_memory`). Pure.

The kernel bounds it (docs/reference/agent-extension.md, Memory); here it is seen to that the bound is hardly ever met: there
are no more connections, and no larger stick tables, than it has room for. So clients wait for their turn, as they do with
`max_connections`, and are not cut off half way. Sizes are HAProxy's own estimates of the worst case (those of its `-m`,
management guide section 3), and what 2.6 was seen to take with 1 to 10,000 servers."""

from __future__ import annotations

import msgspec

from frontinus.model.errors import Rejected

MEBIBYTE = 1 << 20
FEWEST_CONNECTIONS = 100
"""With descriptors for fewer HAProxy does not start."""

OF_ITSELF, OF_THREAD = 8 * MEBIBYTE, 9 * MEBIBYTE
"""Program and libraries; each thread after the first, most of it its stack."""

OF_SERVER = 8 * 1024
OF_CONNECTION, OF_TLS = 40 * 1024, 92 * 1024
"""A stream with two buffers and its descriptors; each side of it that speaks TLS, in its handshake."""

OF_TABLE_ENTRY = 200
TABLES_SHARE = 4
"""Stick tables have a quarter of what is left at most."""

LEAST_MIB = (32, OF_THREAD // MEBIBYTE)
"""What a flavor must give: with one thread, and more for each other."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What takes memory in a configuration. `tls_sides`: 0 to 2, towards clients and towards members."""

    threads: int
    servers: int
    tables: int
    tls_sides: int


class Room(msgspec.Struct, frozen=True):
    """What there is room for. `table_entries` are those of one table; None: no bound."""

    connections: int
    table_entries: int | None = None


def room_within(memory_mib: int, load: Load) -> Room:
    """Raises Rejected for memory in which too few connections could be."""
    tables = OF_TABLE_ENTRY * load.tables
    of_connection = OF_CONNECTION + OF_TLS * load.tls_sides
    taken = OF_ITSELF + OF_THREAD * (load.threads - 1) + OF_SERVER * load.servers
    left = memory_mib * MEBIBYTE - taken
    of_tables = left // TABLES_SHARE if load.tables else 0
    connections = (left - of_tables) // of_connection
    if connections < FEWEST_CONNECTIONS:
        least = taken + FEWEST_CONNECTIONS * of_connection * TABLES_SHARE // (TABLES_SHARE - bool(tables))
        raise Rejected(
            "max_memory",
            f"the {memory_mib} MiB of its flavor are too few for {load.threads} threads and {load.servers} members: "
            f"at least {-(-least // MEBIBYTE)} are needed",
        )
    return Room(connections, max(1, of_tables // tables) if tables else None)

"""The volume of a config drive, as its standard (ECMA-119) lays it out."""

from __future__ import annotations

import struct

import pytest

from frontinus.drivers.compute.qemu.iso9660 import SECTOR, volume

FILES = {
    "openstack/latest/user_data": b"x" * 5000,
    "openstack/latest/meta_data.json": b"{}",
    "openstack/content/0000": b"",
    "readme": b"same",
    "readme.too": b"same",
}


def read(content: bytes, sector: int, length: int, prefix: str = "") -> dict[str, bytes]:
    """Every file below a directory, read by the rules of the standard and not by our writer."""
    found: dict[str, bytes] = {}
    table, at = content[sector * SECTOR : sector * SECTOR + length], 0
    while at < len(table) and table[at]:
        record = table[at : at + table[at]]
        at += table[at]
        (where, size), (where_big, size_big) = (
            struct.unpack("<I4xI", record[2:14]),
            struct.unpack(">I4xI", record[6:18]),
        )
        assert (where, size) == (where_big, size_big)
        name = record[33 : 33 + record[32]]
        if name in (b"\0", b"\1"):
            continue
        if record[25] & 2:
            found |= read(content, where, size, f"{prefix}{name.decode().lower()}/")
        else:
            found[prefix + name.decode().lower().removesuffix(";1")] = content[where * SECTOR : where * SECTOR + size]
    return found


def test_every_file_can_be_read_back() -> None:
    content = volume("config-2", FILES)
    descriptor = content[16 * SECTOR : 17 * SECTOR]
    assert descriptor[:6] == b"\1CD001"
    assert descriptor[40:72].rstrip() == b"config-2"
    assert struct.unpack_from("<I", descriptor, 80)[0] * SECTOR == len(content)
    root = descriptor[156:190]
    assert read(content, *struct.unpack_from("<I", root, 2), *struct.unpack_from("<I", root, 10)) == FILES


def test_same_files_make_the_same_bytes() -> None:
    assert volume("config-2", FILES) == volume("config-2", dict(reversed(FILES.items())))


@pytest.mark.parametrize("name", ["Upper", "a" * 29, "sp ace", "ümlaut"])
def test_a_name_that_it_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name of a file"):
        volume("config-2", {f"openstack/{name}": b""})

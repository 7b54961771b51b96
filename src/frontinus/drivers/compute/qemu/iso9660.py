"""A read-only volume for a few small files, as bytes (ECMA-119, level 2: names of up to 31 characters).

Written here because no tool for it is on every machine, and no loop device or mount is needed. Linux shows the names in
lower case, which is how those of a config drive are. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

SECTOR = 2048
FIRST_DESCRIPTOR = 16
NO_DATE = b"0" * 16 + b"\0"
EPOCH = bytes((100, 1, 1, 0, 0, 0, 0))
"""Years since 1900, month, day, hour, minute, second, zone: the same volume for the same files."""


@dataclass
class _Directory:
    name: bytes
    parent: _Directory | None
    directories: dict[str, _Directory] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    sector: int = 0

    def records(self, where: Mapping[int, int]) -> bytes:
        """The directory's content, one sector; `where` tells the sector of each file by the identity of its content."""
        rows = [_record(b"\0", self.sector, SECTOR, directory=True)]
        parent = self if self.parent is None else self.parent
        rows.append(_record(b"\1", parent.sector, SECTOR, directory=True))
        entries = {
            **{
                _identifier(name): _record(_identifier(name), each.sector, SECTOR, directory=True)
                for name, each in self.directories.items()
            },
            **{
                _identifier(name) + b";1": _record(
                    _identifier(name) + b";1", where.get(id(content), 0), len(content), directory=False
                )
                for name, content in self.files.items()
            },
        }
        rows += [entries[name] for name in sorted(entries)]
        content = b"".join(rows)
        if len(content) > SECTOR:
            raise ValueError("a directory has too many entries")
        return content.ljust(SECTOR, b"\0")


def volume(label: str, files: Mapping[str, bytes]) -> bytes:
    """The volume with these files by their paths. Raises ValueError for a name that it cannot hold."""
    root = _Directory(b"\0", None)
    for path, content in sorted(files.items()):
        _put(root, PurePosixPath(path), content)
    directories = _breadth_first(root)
    table_sector = FIRST_DESCRIPTOR + 2
    sector = table_sector + 2
    for directory in directories:
        directory.sector = sector
        sector += 1
    where: dict[int, int] = {}
    contents: list[bytes] = []
    for directory in directories:
        for content in directory.files.values():
            where[id(content)] = sector
            padded = content.ljust(-(-len(content) // SECTOR) * SECTOR, b"\0")
            contents.append(padded)
            sector += len(padded) // SECTOR
    tables = [_path_table(directories, order) for order in ("little", "big")]
    parts = [
        bytes(FIRST_DESCRIPTOR * SECTOR),
        _descriptor(label, sector, root, len(tables[0]), table_sector),
        (b"\xffCD001\x01").ljust(SECTOR, b"\0"),
        *(table.ljust(SECTOR, b"\0") for table in tables),
        *(directory.records(where) for directory in directories),
        *contents,
    ]
    return b"".join(parts)


def _put(root: _Directory, path: PurePosixPath, content: bytes) -> None:
    directory = root
    for name in path.parts[:-1]:
        if name not in directory.directories:
            directory.directories[name] = _Directory(_identifier(name), directory)
        directory = directory.directories[name]
    _identifier(path.name)
    directory.files[path.name] = bytes(bytearray(content))  # an object of its own, even if two files are alike


def _identifier(name: str) -> bytes:
    if (
        name != name.lower()
        or not 0 < len(name) <= 28
        or not name.isascii()
        or not name.replace(".", "").replace("_", "").isalnum()
    ):
        raise ValueError(f"{name!r} cannot be the name of a file on this volume")
    return name.upper().encode("ascii")


def _breadth_first(root: _Directory) -> list[_Directory]:
    found = [root]
    for directory in found:
        found += [directory.directories[name] for name in sorted(directory.directories)]
    return found


def _both(number: int, size: int) -> bytes:
    """A number in both byte orders (7.3.3, 7.2.3)."""
    return number.to_bytes(size, "little") + number.to_bytes(size, "big")


def _record(identifier: bytes, sector: int, length: int, *, directory: bool) -> bytes:
    """A directory record (9.1)."""
    body = b"".join(
        (
            bytes((0,)),
            _both(sector, 4),
            _both(length, 4),
            EPOCH,
            bytes((2 if directory else 0, 0, 0)),
            _both(1, 2),
            bytes((len(identifier),)),
            identifier,
            b"" if len(identifier) % 2 else b"\0",
        )
    )
    return bytes((len(body) + 1,)) + body


def _path_table(directories: list[_Directory], order: str) -> bytes:
    """Every directory with the number of its parent (9.4)."""
    numbers = {id(directory): number for number, directory in enumerate(directories, 1)}
    rows = []
    for directory in directories:
        parent = directory if directory.parent is None else directory.parent
        rows.append(
            bytes((len(directory.name), 0))
            + directory.sector.to_bytes(4, "little" if order == "little" else "big")
            + numbers[id(parent)].to_bytes(2, "little" if order == "little" else "big")
            + directory.name
            + (b"\0" if len(directory.name) % 2 else b"")
        )
    return b"".join(rows)


def _descriptor(label: str, sectors: int, root: _Directory, table_length: int, table_sector: int) -> bytes:
    """The primary volume descriptor (8.4)."""
    return b"".join(
        (
            b"\x01CD001\x01\0",
            b" " * 32,
            label.encode("ascii").ljust(32),
            bytes(8),
            _both(sectors, 4),
            bytes(32),
            _both(1, 2),
            _both(1, 2),
            _both(SECTOR, 2),
            _both(table_length, 4),
            table_sector.to_bytes(4, "little"),
            bytes(4),
            (table_sector + 1).to_bytes(4, "big"),
            bytes(4),
            _record(b"\0", root.sector, SECTOR, directory=True),
            b" " * (128 * 4),
            b" " * (37 * 3),
            NO_DATE * 4,
            b"\x01",
        )
    ).ljust(SECTOR, b"\0")

"""Kill a process inside a guest, without another image: kernel and disk are those of `make image`, bit for bit.

What is added is a file in the RAM disk and a second serial port of QEMU, both by the test. The file is a shell that stays
behind when the RAM disk's own start goes on to the disk; it reads from that port and does what it is told. Whoever starts
QEMU may read all of a guest's memory anyhow, so nothing is opened that was shut; and what `make image` gives out knows
nothing of it. *Not chosen:* a variant of the image, which would not be what is given out; QEMU's debugger, which would
have to know the kernel's structures; the kernel's SysRq, which kills everything, or whom it likes."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

from frontinus.drivers.compute.qemu.machine import DISK, KERNEL, KERNEL_WORDS, RAM_DISK

PROGRAM = "qemu-with-reaper"
SOCKET = "reaper"
"""In the directory of the machine."""

HAPROXY, AGENT, KEEPALIVED = "haproxy *", "python3 *frontinus_amphora*", "keepalived *"
"""Patterns of the shell, for the name of a process and its command line."""

ANSWER_WITHIN_S = 60.0

REAPER = b"""#!/bin/busybox sh
# Mounts of its own, since those of the RAM disk move to the root; nothing but what the shell has built in after that.
/bin/busybox mkdir -p /dev /reaper.d/proc /reaper.d/dev
/bin/busybox mknod /dev/null c 1 3  # where a shell in the background reads from
/bin/busybox mount -t proc proc /reaper.d/proc
/bin/busybox mount -t devtmpfs dev /reaper.d/dev
(
    /bin/busybox stty -F /reaper.d/dev/ttyS1 raw -echo
    exec 3<>/reaper.d/dev/ttyS1
    cd /reaper.d/proc
    while read -r wanted <&3; do
        hit=hit
        for pid in [1-9]*; do
            name= line=
            read -r name <"$pid/comm"
            read -r line <"$pid/cmdline"
            case "$name $line" in $wanted) kill -9 "$pid" && hit="$hit $pid" ;; esac
        done
        echo "$hit" >&3
    done
) 2>/dev/null &
exec /init
"""


def with_reaper(image: Path, directory: Path) -> tuple[Path, Path]:
    """An image's directory and a QEMU, for the settings of the compute driver, whose guests can be reached into."""
    directory.mkdir()
    for name in (KERNEL, DISK):
        (directory / name).symlink_to(image / name)
    # The kernel unpacks one archive after the other.
    (directory / RAM_DISK).write_bytes((image / RAM_DISK).read_bytes() + _archive("reaper", REAPER))
    qemu = shutil.which("qemu-system-x86_64")
    assert qemu is not None, "apt-get install qemu-system-x86"
    program = directory / PROGRAM
    program.write_text(
        f'#!/bin/sh\nexec {qemu} "$@" -append "{KERNEL_WORDS} rdinit=/reaper" '
        f"-chardev socket,id=reaper,path={SOCKET},server=on,wait=off -serial chardev:reaper\n"
    )
    program.chmod(0o755)
    return directory, program


def kill(machine: Path, pattern: str) -> tuple[int, ...]:
    """SIGKILL whatever is such in the guest of this machine's directory; its process ids there."""
    handle = os.open(machine, os.O_PATH)  # a socket's path must be short
    try:
        with socket.socket(socket.AF_UNIX) as guest:
            guest.settimeout(ANSWER_WITHIN_S)
            guest.connect(f"/proc/self/fd/{handle}/{SOCKET}")
            guest.sendall(f"{pattern}\n".encode())
            # Before the shell has the port, what comes is echoed.
            word = next(x for x in map(str.split, guest.makefile()) if x[:1] == ["hit"])
            return tuple(map(int, word[1:]))
    finally:
        os.close(handle)


def _archive(name: str, content: bytes) -> bytes:
    """One program as a cpio archive (`newc`; the kernel's Documentation/driver-api/early-userspace/buffer-format.rst)."""
    return _entry(name, 0o100755, content) + _entry("TRAILER!!!", 0, b"")


def _entry(name: str, mode: int, content: bytes) -> bytes:
    fields = (1, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % x for x in fields) + name.encode() + b"\0"
    return _padded(head) + _padded(content)


def _padded(part: bytes) -> bytes:
    return part + bytes(-len(part) % 4)

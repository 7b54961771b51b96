"""Write files so that a reader sees the old or the new, never half, and nobody else reads them at all."""

import contextlib
import os

PRIVATE_FILE = 0o600
PRIVATE_DIRECTORY = 0o700
PRIVATE_PROGRAM = 0o700
PUBLIC_PROGRAM = 0o755


def write_atomically(path: str, content: bytes, *, durable: bool = False, mode: int = PRIVATE_FILE) -> None:
    """Replace `path` in one step, mode 0600. `durable` waits for the disk, for what must survive a power cut."""
    scratch = f"{path}.{os.getpid()}.tmp"
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "wb") as file:
            if mode != PRIVATE_FILE:
                os.fchmod(file.fileno(), mode)  # whatever the umask
            file.write(content)
            if durable:
                file.flush()
                os.fdatasync(file.fileno())
        os.rename(scratch, path)
    except OSError:
        remove(scratch)
        raise


def read(path: str) -> bytes | None:
    """The content, or None when there is no such file."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def remove(path: str) -> None:
    """Remove a file; an absent one is fine."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def make_directory(path: str) -> None:
    """Make a directory (and those above), mode 0700; an existing one is left as it is."""
    os.makedirs(path, PRIVATE_DIRECTORY, exist_ok=True)


def remove_tree(path: str) -> None:
    """Remove a directory with what is in it; an absent one is fine. Links are removed, not followed."""
    try:
        entries = list(os.scandir(path))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            remove_tree(entry.path)
        else:
            remove(entry.path)
    os.rmdir(path)

"""A real Keystone on a loopback port: SQLite, Fernet tokens, everything in one directory. For tests only.

`python run_keystone.py DIRECTORY PASSWORD` prints its port when it is ready, and serves until it is killed. One process
does what an operator does with several commands, since most of the time of each goes into its imports."""

from __future__ import annotations

import os
import socketserver
import sys
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from cryptography.fernet import Fernet
from keystone.cmd import cli  # type: ignore[import-untyped]
from keystone.server.flask import core  # type: ignore[import-untyped]

CONFIGURATION = """
[DEFAULT]
use_stderr = true
[database]
connection = sqlite:///{directory}/keystone.sqlite
[fernet_tokens]
key_repository = {directory}/keys
[fernet_receipts]
key_repository = {directory}/keys
[credential]
key_repository = {directory}/keys
[identity]
password_hash_rounds = 4
[cache]
enabled = false
"""


class Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Keystone logs by itself."""


def manage(file: Path, *words: str) -> None:
    """One command of keystone-manage, in a child, since its configuration can be made only once in a process."""
    child = os.fork()
    if child == 0:
        try:
            cli.main(argv=["keystone-manage", "--config-file", str(file), *words])
        finally:
            sys.stderr.flush()
            os._exit(1 if sys.exc_info()[0] else 0)
    if os.waitpid(child, 0)[1] != 0:
        raise SystemExit(f"keystone-manage {words[0]} failed")


def main(directory: Path, password: str) -> None:
    keys = directory / "keys"
    keys.mkdir(mode=0o700)
    for number in (0, 1):
        key = keys / str(number)
        key.touch(0o600)
        key.write_bytes(Fernet.generate_key())
    file = directory / "keystone.conf"
    file.write_text(CONFIGURATION.format(directory=directory))
    server = Server(("127.0.0.1", 0), Quiet)
    url = f"http://127.0.0.1:{server.server_port}/v3"
    manage(file, "db_sync")
    region = ["--bootstrap-region-id", "RegionOne"]
    manage(file, "bootstrap", "--bootstrap-password", password, *region, "--bootstrap-public-url", url)
    sys.argv = sys.argv[:1]  # Keystone reads it
    server.set_app(core.initialize_application(name="public", config_files=[str(file)]))
    print(server.server_port, flush=True)  # noqa: T201 - whoever started this waits for it
    server.serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

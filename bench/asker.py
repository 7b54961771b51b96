"""A client that opens a connection every 5 ms, whatever became of the ones before, and prints a line for each answer:
when it was asked and when it was answered (CLOCK_MONOTONIC, which is one for the whole machine), and the answer's last
line. Runs by itself, in a network namespace of the caller's choice.

Usage: python bench/asker.py ADDRESS PORT [INTERVAL_MS]"""

from __future__ import annotations

import errno
import selectors
import socket
import sys
import time

PATIENCE_S = 1.0


def main(address: str, port: int, interval: float) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    selector = selectors.DefaultSelector()
    asked: dict[socket.socket, float] = {}
    due = time.monotonic()

    def forget(connection: socket.socket) -> None:
        selector.unregister(connection)
        connection.close()
        asked.pop(connection)

    while True:
        now = time.monotonic()
        if now >= due:
            due = max(due + interval, now)
            connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            if connection.connect_ex((address, port)) in (0, errno.EINPROGRESS):
                asked[connection] = now
                selector.register(connection, selectors.EVENT_WRITE)
            else:
                connection.close()
        for key, _ in selector.select(max(0.0, due - time.monotonic())):
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            try:
                if key.events == selectors.EVENT_WRITE:
                    connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    selector.modify(connection, selectors.EVENT_READ)
                    continue
                answer = connection.recv(4096)
            except OSError:
                forget(connection)
                continue
            if answer.startswith(b"HTTP/1.") and b" 200 " in answer[:16]:
                # The head alone may have come so far: it is an answer all the same.
                body = answer.rpartition(b"\r\n")[2].decode("ascii", "replace").strip()
                print(f"{asked[connection]:.6f} {time.monotonic():.6f} {body or '-'}", flush=True)
            forget(connection)
        for connection in [x for x, moment in asked.items() if now - moment > PATIENCE_S]:
            forget(connection)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]) / 1000 if len(sys.argv) > 3 else 0.005)

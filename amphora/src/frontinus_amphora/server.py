"""The REST server: mutual TLS, a thread per connection.

The listening thread only accepts. A handshake happens in the connection's own thread and has its time limit, so a
silent or slow stranger holds one thread for seconds and nobody else; when there are too many, whoever has been silent
longest makes room. It knows no route: routes.py does.
"""

import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable

from frontinus_amphora import files
from frontinus_amphora.errors import Invalid
from frontinus_amphora.http_wire import Closed, Reader, Refused, default_error, encode
from frontinus_amphora.log import log
from frontinus_amphora.routes import Routes
from frontinus_amphora.settings import Settings

HANDSHAKE_TIMEOUT = 10.0
MOST_CONNECTIONS = 64
THREAD_STACK = 512 * 1024


class Server:
    """Guarded by `_lock`: the TLS context in use, the number of connections, those that have not said who they are."""

    def __init__(self, settings: Settings, routes: Routes, heed_time: Callable[[str], None]) -> None:
        """Binds and listens. Raises OSError (with ssl.SSLError below it) when it cannot. `heed_time` is told the time by
        every request that says it, before anything is done about it."""
        self._settings = settings
        self._routes = routes
        self._heed_time = heed_time
        self._lock = threading.Lock()
        self._connections = 0
        self._nameless: list[ssl.SSLSocket] = []  # in the order in which they came
        self._stopping = False
        self._context = make_context(settings.server_cert, settings.client_ca)
        family = socket.AF_INET6 if ":" in settings.bind_host else socket.AF_INET
        self._listener = socket.create_server(
            (settings.bind_host, settings.bind_port),
            family=family,
            backlog=64,
            dualstack_ipv6=family == socket.AF_INET6 and settings.bind_host == "::" and socket.has_dualstack_ipv6(),
        )

    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def start(self) -> None:
        threading.stack_size(THREAD_STACK)
        threading.Thread(target=self._accept, name="accept", daemon=True).start()

    def stop(self) -> None:
        """Take no new connection; requests under way end by themselves."""
        self._stopping = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def replace_identity(self, certificate: bytes, client_ca: bytes | None = None) -> None:
        """Use this certificate and key, and these authorities of clients (None: the same as before), for handshakes from
        now on; connections that are there go on. Raises Invalid, changing nothing, when they cannot be used."""
        with self._lock:
            certificate_trial = f"{self._settings.server_cert}.new"
            client_ca_trial = self._settings.client_ca if client_ca is None else f"{self._settings.client_ca}.new"
            files.write_atomically(certificate_trial, certificate)
            if client_ca is not None:
                files.write_atomically(client_ca_trial, client_ca)
            try:
                context = make_context(certificate_trial, client_ca_trial)
            except (ssl.SSLError, ValueError) as error:
                files.remove(certificate_trial)
                if client_ca is not None:
                    files.remove(client_ca_trial)
                raise Invalid(
                    "Invalid certificate", "certificate, key and authorities cannot be used together"
                ) from error
            # Either order is whole: a certificate needs no authority of clients, nor they it.
            if client_ca is not None:
                os.rename(client_ca_trial, self._settings.client_ca)
            os.rename(certificate_trial, self._settings.server_cert)
            self._context = context
        log("server certificate replaced", authorities="kept" if client_ca is None else "replaced")

    def _accept(self) -> None:
        while True:
            try:
                connection, address = self._listener.accept()
            except OSError as error:
                if self._stopping:
                    return
                log("connection not accepted", error=error.strerror)  # out of descriptors, or lost meanwhile
                time.sleep(0.1)
                continue
            if not self._has_room():
                connection.close()
                log("connection refused", peer=address[0], reason="too many")
                continue
            try:
                threading.Thread(target=self._serve, args=(connection, address[0]), daemon=True).start()
            except RuntimeError:  # no thread to be had
                connection.close()
                self._leave()

    def _has_room(self) -> bool:
        """Count one connection more, if need be in place of one whose handshake hangs. Otherwise anybody who can reach
        the port, which on loopback is every user of the machine, could lock the controller out."""
        with self._lock:
            if self._connections >= MOST_CONNECTIONS:
                if not self._nameless:
                    return False
                with contextlib.suppress(OSError):
                    # Not SSLSocket's own, which would take the TLS object from under the thread that uses it.
                    socket.socket.shutdown(self._nameless.pop(0), socket.SHUT_RDWR)
            self._connections += 1
            return True

    def _leave(self) -> None:
        with self._lock:
            self._connections -= 1

    def _serve(self, plain: socket.socket, peer: str) -> None:
        try:
            plain.settimeout(HANDSHAKE_TIMEOUT)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False) as connection:
                self._shake_hands(connection)
                self._converse(connection, peer)
        except OSError as error:  # TLS errors are among them; the connection is lost, nothing else is
            log("connection lost", peer=peer, error=getattr(error, "reason", None) or error.strerror or str(error))
        finally:
            plain.close()
            self._leave()

    def _shake_hands(self, connection: ssl.SSLSocket) -> None:
        with self._lock:
            self._nameless.append(connection)
        try:
            connection.do_handshake()
        finally:
            with self._lock, contextlib.suppress(ValueError):  # it may have had to make room
                self._nameless.remove(connection)

    def _converse(self, connection: ssl.SSLSocket, peer: str) -> None:
        reader = Reader(connection, self._settings.idle_timeout, self._settings.request_read_timeout)
        stranger = not self._is_controller(connection)
        while True:
            try:
                request = reader.read()
            except Closed:
                return
            except Refused as refused:
                connection.sendall(encode(default_error(refused.status, str(refused)), keep=False))
                reader.discard(2.0)
                return
            if stranger:
                log("request refused", peer=peer, reason="client certificate has another identity")
                connection.sendall(encode(default_error(403, "this client is not the controller"), keep=False))
                return
            if request.time:
                self._heed_time(request.time)
            response = self._routes.respond(request)
            connection.settimeout(self._settings.request_read_timeout)
            connection.sendall(encode(response, request.keep))
            if not request.keep:
                return

    def _is_controller(self, connection: ssl.SSLSocket) -> bool:
        wanted = self._settings.controller_identity
        if wanted is None:
            return True
        names = (connection.getpeercert() or {}).get("subjectAltName", ())
        return ("DNS", wanted) in names


def make_context(certificate: str, client_ca: str) -> ssl.SSLContext:
    """TLS 1.2 or later, with a certificate demanded of the client. Raises ssl.SSLError, OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(client_ca)
    context.load_cert_chain(certificate, password=_no_password)
    return context


def _no_password() -> str:
    raise ValueError("the key must not be encrypted")

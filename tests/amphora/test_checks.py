"""Members are examined over real sockets: what each kind of check takes for life, and for death."""

import contextlib
import resource
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from frontinus_amphora.checks import Checks
from frontinus_amphora.outline import Check, is_up

from tests.amphora.world import MEMBER_ADDRESS, wait_for

pytestmark = pytest.mark.integration


@contextlib.contextmanager
def datagram_service(answers: bool) -> Iterator[int]:
    """Takes datagrams, and may answer them."""
    ended = threading.Event()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
        service.bind((MEMBER_ADDRESS, 0))
        service.settimeout(0.02)

        def serve() -> None:
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    content, sender = service.recvfrom(100)
                    if answers:
                        service.sendto(content, sender)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield int(service.getsockname()[1])
        finally:
            ended.set()
            thread.join()


@contextlib.contextmanager
def stream_service(answer: bytes | None) -> Iterator[int]:
    """Answers whoever asks; None: says nothing at all."""
    ended = threading.Event()
    with socket.socket() as service:
        service.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        service.bind((MEMBER_ADDRESS, 0))
        service.listen()
        service.settimeout(0.02)

        def serve() -> None:
            kept = []
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    connection, _ = service.accept()
                    kept.append(connection)
                    if answer is not None:
                        with contextlib.suppress(OSError):
                            connection.recv(1000)
                            connection.sendall(answer)
            for connection in kept:
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield int(service.getsockname()[1])
        finally:
            ended.set()
            thread.join()


def a_check(kind: str, port: int, *codes: tuple[int, int]) -> Check:
    request = b"GET / HTTP/1.0\r\n\r\n" if kind == "HTTP" else b""
    return Check(kind, MEMBER_ADDRESS, port, 0.05, 0.15, 2, 2, request, codes)


@pytest.fixture
def checks() -> Iterator[Callable[..., Checks]]:
    made: list[Checks] = []

    def make(changed: Callable[[], None] = lambda: None) -> Checks:
        made.append(Checks(changed))
        return made[-1]

    yield make
    for each in made:
        each.stop()


def nothing() -> contextlib.AbstractContextManager[int]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
        service.bind((MEMBER_ADDRESS, 0))
        port = int(service.getsockname()[1])
    return contextlib.nullcontext(port)


OK = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.mark.parametrize(
    "kind, service, lives",
    [
        pytest.param("UDP-CONNECT", lambda: datagram_service(True), True, id="datagrams are answered"),
        pytest.param("UDP-CONNECT", lambda: datagram_service(False), True, id="datagrams are taken in silence"),
        pytest.param("UDP-CONNECT", nothing, False, id="datagrams are refused"),
        pytest.param("TCP", lambda: stream_service(None), True, id="a connection is accepted"),
        pytest.param("TCP", nothing, False, id="a connection is refused"),
        pytest.param("HTTP", lambda: stream_service(OK), True, id="the code is expected"),
        pytest.param("HTTP", lambda: stream_service(OK.replace(b"200", b"503")), False, id="another code"),
        pytest.param("HTTP", lambda: stream_service(b"220 mail.example\r\n"), False, id="not HTTP"),
        pytest.param("HTTP", lambda: stream_service(None), False, id="no answer in time"),
        pytest.param("HTTP", nothing, False, id="nobody to ask"),
    ],
)
def test_what_is_life(
    checks: Callable[..., Checks],
    kind: str,
    service: Callable[[], contextlib.AbstractContextManager[int]],
    lives: bool,
) -> None:
    with service() as port:
        examiner = checks()
        check = a_check(kind, port, (200, 204))
        examiner.watch({"m": check})
        settled = check.best if lives else 0
        wait_for(lambda: examiner.healths()["m"] == settled)


def test_a_member_that_returns_is_noticed_and_told(checks: Callable[..., Checks]) -> None:
    told = threading.Semaphore(0)
    with nothing() as port:
        examiner = checks(told.release)
        check = a_check("UDP-CONNECT", port)
        examiner.watch({"m": check})
        assert told.acquire(timeout=5)
        assert not is_up(examiner.healths()["m"], check)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
            service.bind((MEMBER_ADDRESS, port))
            assert told.acquire(timeout=5)
            assert is_up(examiner.healths()["m"], check)


def test_what_is_known_outlives_a_change(checks: Callable[..., Checks]) -> None:
    """A member that is down stays so under new thresholds; one that is not watched any more is forgotten."""
    with nothing() as port:
        examiner = checks()
        check = a_check("UDP-CONNECT", port)
        examiner.watch({"m": check})
        wait_for(lambda: examiner.healths() == {"m": 0})
        examiner.watch({"m": check._replace(fall=5, interval=60.0), "n": check._replace(interval=60.0)})
        assert examiner.healths()["m"] == 0
        examiner.watch({})
        assert examiner.healths() == {}
        examiner.watch({"m": check}, {"m": 0})
        assert examiner.healths() == {"m": 0}


def test_what_the_agent_lacks_is_no_failure_of_a_member(
    checks: Callable[..., Checks], capsys: pytest.CaptureFixture[str]
) -> None:
    """Without descriptors nobody is asked, and the members go on as they were."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with datagram_service(True) as port:
        examiner = checks()
        check = a_check("UDP-CONNECT", port)._replace(fall=1)
        examiner.watch({"m": check})
        wait_for(lambda: examiner.healths() == {"m": check.best})
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
        try:
            wait_for(lambda: "members not examined" in capsys.readouterr().err)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert examiner.healths() == {"m": check.best}

"""Files beside a configuration: keys in memory only, whole sets or nothing, and a push asked for when they are gone."""

import hashlib
import os
import shutil
import signal
import socket
import ssl
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.amphora.test_heartbeat import beat_where
from tests.amphora.world import (
    ADDRESS,
    Amphora,
    Controller,
    Member,
    SentFile,
    digest_of,
    free_port,
    get,
    wait_for,
)

pytestmark = pytest.mark.integration

LISTENER, POOL, ONE = (str(uuid.UUID(int=number)) for number in (1, 3, 11))


class Site:
    """A load balancer that ends TLS, as a driver would render it: relative paths to a private and a public file."""

    def __init__(self, amphora: Amphora, member: Member) -> None:
        self.amphora = amphora
        self.lb = amphora.load_balancer_id
        self.port = free_port()
        plain = amphora.render({LISTENER: self.port}, {ONE: member.port}, pool_id=POOL)
        bind = f"bind {ADDRESS}:{self.port}"
        self.text = plain.replace(bind, f"{bind} ssl crt-list {self.lb}/files/list")
        self.plain = plain
        self.certificates = [amphora.pki.server_ca.issue_pem("www.example") for _ in range(3)]

    def files(self, certificate: int, *, sent: bool = True) -> tuple[SentFile, ...]:
        listed = f"certs/{self.lb}/site.pem\n".encode()
        return (
            SentFile("list", listed, private=False, sent=sent),
            SentFile("site.pem", self.certificates[certificate], sent=sent),
        )

    def apply(self, controller: Controller, certificate: int) -> str:
        answer = controller.apply(self.lb, self.text, files=self.files(certificate))
        assert answer.status == 200, answer.body
        return str(answer.json["action"])

    def served(self) -> int:
        """Which of the certificates is served."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with context.wrap_socket(socket.create_connection((ADDRESS, self.port))) as connection:
            found = connection.getpeercert(binary_form=True)
        return [ssl.PEM_cert_to_DER_cert(x.decode().partition("-----BEGIN EC")[0]) for x in self.certificates].index(
            found or b""
        )


@pytest.fixture
def site(amphora: Amphora, members: list[Member]) -> Site:
    return Site(amphora, members[0])


def holds(directory: Path, content: bytes) -> bool:
    """Whether a file below the directory, links not followed, holds these bytes."""
    paths = (path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
    return any(content in path.read_bytes() for path in paths)


def key_of(certificate: bytes) -> bytes:
    return certificate.partition(b"-----BEGIN EC")[2].splitlines()[1]


def test_keys_are_in_memory_and_nowhere_else(site: Site) -> None:
    controller, amphora = site.amphora.controller(), site.amphora
    assert site.apply(controller, 0) == "start"
    assert site.served() == 0
    state = controller.state(site.lb)
    assert state["digest"] == digest_of(site.text, site.files(0))
    assert {(x["name"], x["private"]) for x in state["files"]} == {("list", False), ("site.pem", True)}
    assert holds(amphora.memory, key_of(site.certificates[0]))
    assert not holds(amphora.directory, key_of(site.certificates[0]))
    assert holds(amphora.directory, b"site.pem")
    assert oct(amphora.certificates.stat().st_mode & 0o777) == "0o700"

    assert site.apply(controller, 0) == "unchanged"
    assert site.apply(controller, 1) == "reload"
    assert site.served() == 1
    assert not holds(amphora.memory, key_of(site.certificates[0])), "an old key is kept"
    assert controller.apply(site.lb, site.plain).json["action"] == "reload"
    assert get(site.port) == "one"
    assert not holds(amphora.memory, key_of(site.certificates[1])), "a key that nobody names is kept"
    assert controller.state(site.lb)["digest"] == digest_of(site.plain)


def test_a_beat_tells_that_keys_have_vanished(site: Site) -> None:
    controller, ears = site.amphora.controller(), site.amphora.ears
    site.apply(controller, 0)
    for path in site.amphora.memory.rglob("site.pem"):
        path.unlink()
    assert beat_where(ears, lambda content: "incomplete" in content)["incomplete"] == [site.lb]
    assert site.served() == 0, "what runs goes on"
    assert site.apply(controller, 0) == "reload"
    beat_where(ears, lambda content: "incomplete" not in content)


def test_a_beat_tells_that_there_is_nothing(site: Site) -> None:
    ears = site.amphora.ears
    assert beat_where(ears, lambda content: "empty" in content)["listeners"] == {}
    site.apply(site.amphora.controller(), 0)
    beat_where(ears, lambda content: "empty" not in content)


def test_what_is_here_need_not_be_sent(site: Site) -> None:
    controller = site.amphora.controller()
    site.apply(controller, 0)
    other = site.text.replace("maxconn 500", "maxconn 501")
    base = digest_of(site.text, site.files(0))
    answer = controller.apply(site.lb, other, base=base, reload=True, files=site.files(0, sent=False))
    assert answer.json["action"] == "reload"
    answer = controller.apply(site.lb, site.text, files=site.files(1, sent=False))
    assert (answer.status, answer.json["missing"]) == (409, ["site.pem"])
    assert answer.json["current"] == digest_of(other, site.files(0))
    assert site.served() == 0


@pytest.mark.parametrize("running", [True, False], ids=["while another runs", "as the first"])
def test_files_that_haproxy_refuses_change_nothing(site: Site, running: bool) -> None:
    controller = site.amphora.controller()
    if running:
        site.apply(controller, 0)
    broken = (site.files(0)[0], SentFile("site.pem", site.certificates[1].partition(b"-----BEGIN EC")[0]))
    answer = controller.apply(site.lb, site.text, files=broken)
    assert answer.status == 400
    assert "site.pem" in answer.json["details"]
    before = digest_of(site.text, site.files(0)) if running else None
    assert controller.state(site.lb)["digest"] == before
    assert not running or (site.served() == 0 and site.apply(controller, 0) == "unchanged")
    assert not holds(site.amphora.memory, key_of(site.certificates[1]))


def test_a_certificate_is_replaced_at_run_time_and_is_what_is_on_disk(site: Site) -> None:
    controller = site.amphora.controller()
    site.apply(controller, 0)
    name = f"certs/{site.lb}/site.pem"
    commands = (
        f"set ssl cert {name} <<\n{site.certificates[1].decode()}\n",
        f"commit ssl cert {name}",
    )
    base = digest_of(site.text, site.files(0))
    answer = controller.apply(site.lb, site.text, base=base, commands=commands, files=site.files(1))
    assert (answer.status, answer.json["action"], answer.json["fallback"]) == (200, "runtime", None)
    assert site.served() == 1
    assert controller.call("PUT", f"/1.0/loadbalancer/{site.lb}/reload").status == 202
    assert site.served() == 1
    assert key_of(site.certificates[1]) not in site.amphora.log.read_bytes()


def test_keys_survive_agent_and_haproxy(site: Site) -> None:
    controller = site.amphora.controller()
    site.apply(controller, 0)
    site.amphora.kill()
    again = site.amphora.start().controller()
    assert again.state(site.lb)["digest"] == digest_of(site.text, site.files(0))

    killed = again.state(site.lb)["pid"]
    os.kill(killed, signal.SIGKILL)
    # The worker that is left serves a moment longer than its master.
    wait_for(lambda: again.state(site.lb)["pid"] not in (None, killed) and _serves(site))
    assert site.served() == 0


def _serves(site: Site) -> bool:
    try:
        return site.served() == 0
    except OSError:
        return False


def test_a_machine_that_restarted_asks_for_a_push(site: Site) -> None:
    """All processes die and the memory is empty; the disk is as it was."""
    controller, amphora = site.amphora.controller(), site.amphora
    site.apply(controller, 0)
    amphora.kill()
    for pid in amphora.haproxies():
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not amphora.haproxies())
    shutil.rmtree(amphora.certificates)
    again = amphora.start().controller()
    assert again.state(site.lb)["digest"] is None
    wait_for(lambda: not again.state(site.lb)["running"])  # between the agent's tries to start it without its keys
    old = digest_of(site.text, site.files(0))
    refused = again.apply(site.lb, site.text, base=old, files=site.files(0, sent=False))
    assert (refused.status, refused.json["current"]) == (409, None)
    assert site.apply(again, 0) in ("start", "reload")
    assert site.served() == 0
    assert again.state(site.lb)["digest"] == old


def test_without_memory_keys_are_refused(new_amphora: Callable[..., Amphora], members: list[Member]) -> None:
    amphora = new_amphora(on_disk=True)
    site = Site(amphora, members[0])
    controller = amphora.controller()
    answer = controller.apply(site.lb, site.text, files=site.files(0))
    assert answer.status == 500
    assert "tmpfs" in answer.json["details"]
    path = f"/1.0/loadbalancer/{site.lb}/certificates/a.pem"
    assert controller.call("PUT", path, site.certificates[0]).status == 500
    assert not holds(amphora.directory, key_of(site.certificates[0]))
    assert controller.apply(site.lb, site.plain).status == 200


def test_delete_leaves_no_key(site: Site) -> None:
    controller = site.amphora.controller()
    site.apply(controller, 0)
    assert controller.call("DELETE", f"/1.0/listeners/{site.lb}").status == 200
    assert list(site.amphora.certificates.rglob("*")) == []


@pytest.mark.parametrize(
    "row",
    [
        pytest.param({"name": "../x"}, id="out of the directory"),
        pytest.param({"name": "a/b"}, id="a path"),
        pytest.param({"name": ".hidden"}, id="hidden"),
        pytest.param({"sha256": "0" * 64}, id="not its sha256"),
        pytest.param({"content": "%"}, id="not base64"),
        pytest.param({"private": 1}, id="private no boolean"),
        pytest.param({"surprise": 1}, id="unknown key"),
    ],
)
def test_malformed_files_change_nothing(site: Site, row: dict[str, object]) -> None:
    controller = site.amphora.controller()
    rows = [{**each.row(), **row} if number else each.row() for number, each in enumerate(site.files(0))]
    answer = controller.apply(site.lb, site.text, files=site.files(0), changed={"files": rows})
    assert answer.status == 400
    assert controller.state(site.lb)["digest"] is None
    assert hashlib.sha256(site.certificates[0]).hexdigest() not in str(answer.json)

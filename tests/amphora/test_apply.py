"""The batch apply against a real haproxy with real requests."""

import hashlib
import os
import signal
import socket
import ssl
import threading
import uuid
from pathlib import Path

import pytest

from frontinus_amphora import haproxy_text
from frontinus_amphora.agent import Agent
from frontinus_amphora.errors import BaseMismatch, Missing
from frontinus_amphora.settings import load_settings
from frontinus_amphora.values import Change

from tests.amphora.world import ADDRESS, MEMBER_ADDRESS, Amphora, Crowd, Member, Pki, free_port, get, serves, wait_for

pytestmark = pytest.mark.integration

LISTENER, OTHER, POOL = (str(uuid.UUID(int=number)) for number in (1, 2, 3))
ONE, TWO, THREE = (str(uuid.UUID(int=number)) for number in (11, 12, 13))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_first_apply_starts_haproxy(amphora: Amphora, members: list[Member]) -> None:
    port = free_port()
    text = amphora.render({LISTENER: port}, {ONE: members[0].port}, pool_id=POOL)
    controller = amphora.controller()
    answer = controller.apply(amphora.load_balancer_id, text)
    assert (answer.status, answer.json["action"]) == (200, "start")
    assert get(port) == "one"
    state = controller.state(amphora.load_balancer_id)
    assert {"digest": digest(text), "running": True, "workers": 1, "removing": [], "files": []} == {
        key: value for key, value in state.items() if key != "pid"
    }
    again = controller.apply(amphora.load_balancer_id, text)
    assert (again.status, again.json["action"]) == (200, "unchanged")
    assert state["pid"] == controller.state(amphora.load_balancer_id)["pid"]


def test_nothing_is_said_to_run_before_it_has_its_ports(amphora: Amphora, members: list[Member]) -> None:
    """Whoever asks while another's change is under way: he would record it as done."""
    port, lb, first, second = free_port(), amphora.load_balancer_id, amphora.controller(), amphora.controller()
    text = amphora.render({LISTENER: port}, {ONE: members[0].port}, pool_id=POOL)
    for _ in range(5):
        change = threading.Thread(target=first.apply, args=(lb, text))
        change.start()
        try:
            wait_for(lambda: second.state(lb)["running"])
            assert get(port) == "one"
        finally:
            change.join()
        assert second.call("DELETE", f"/1.0/listeners/{lb}").status == 200


def test_who_lost_the_load_balancer_to_another_changes_nothing(amphora: Amphora, members: list[Member]) -> None:
    """A controller that was stopped for longer than its lease wakes with an old configuration in its hands."""
    port, lb = free_port(), amphora.load_balancer_id
    old, new = (amphora.render({LISTENER: port}, {ONE: members[n].port}, pool_id=POOL) for n in (0, 1))
    controller = amphora.controller()
    assert controller.apply(lb, old, fence=5).status == 200
    assert controller.apply(lb, new, fence=7).status == 200
    late = controller.apply(lb, old, base=digest(new), fence=5)
    assert (late.status, late.json["fence"]) == (412, 7)
    assert controller.call("DELETE", f"/1.0/listeners/{lb}?fence=6").status == 412
    assert (get(port), controller.state(lb)["digest"]) == ("two", digest(new))
    assert controller.apply(lb, old, fence=7).status == 200  # the same controller goes on
    assert controller.apply(lb, new).status == 200  # a driver that knows no fences
    assert controller.call("DELETE", f"/1.0/listeners/{lb}?fence=8").status == 200
    assert controller.apply(lb, old, fence=7).status == 412  # also of what was deleted since


def test_an_agent_that_was_started_again_knows_who_is_late(amphora: Amphora, members: list[Member]) -> None:
    port, lb = free_port(), amphora.load_balancer_id
    old, new = (amphora.render({LISTENER: port}, {ONE: members[n].port}, pool_id=POOL) for n in (0, 1))
    assert amphora.controller().apply(lb, new, fence=6).status == 200
    amphora.kill()
    amphora.start()
    controller = amphora.controller()
    late = controller.apply(lb, old, base=digest(new), fence=5)
    assert (late.status, late.json["fence"]) == (412, 6)
    assert get(port) == "two"
    assert controller.apply(lb, old, base=digest(new), fence=6).status == 200
    assert controller.call("DELETE", f"/1.0/listeners/{lb}?fence=8").status == 200
    amphora.kill()
    amphora.start()
    assert amphora.controller().apply(lb, old, fence=7).status == 412  # also of what was deleted since


def test_members_change_under_load_without_a_failed_request(amphora: Amphora, members: list[Member]) -> None:
    port = free_port()
    backend = f"{POOL}:{LISTENER}"
    first = amphora.render({LISTENER: port}, {ONE: members[0].port}, pool_id=POOL)
    controller = amphora.controller()
    controller.apply(amphora.load_balancer_id, first)
    both = amphora.render({LISTENER: port}, {ONE: members[0].port, TWO: members[1].port}, pool_id=POOL)
    weighted = both.replace("weight 1", "weight 5", 1)
    pid = controller.state(amphora.load_balancer_id)["pid"]
    with Crowd(port) as crowd:
        before = first
        for text, commands in (
            (
                both,
                (
                    f"add server {backend}/{TWO} {MEMBER_ADDRESS}:{members[1].port} weight 1",
                    f"enable server {backend}/{TWO}",
                ),
            ),
            (weighted, (f"set server {backend}/{ONE} weight 5",)),
            (both, (f"set server {backend}/{ONE} weight 1",)),
            (first, (f"set server {backend}/{TWO} state maint", f"del server {backend}/{TWO}")),
        ):
            answer = controller.apply(amphora.load_balancer_id, text, base=digest(before), commands=commands)
            assert (answer.status, answer.json["action"], answer.json["fallback"]) == (200, "runtime", None)
            if text == both:
                wait_for(lambda: "two" in crowd.names)
            before = text
    assert crowd.failures == []
    wait_for(lambda: controller.state(amphora.load_balancer_id)["removing"] == [])
    state = controller.state(amphora.load_balancer_id)
    assert (digest(first), pid, 1) == (state["digest"], state["pid"], state["workers"])


def test_reload_under_load_fails_no_request(amphora: Amphora, members: list[Member]) -> None:
    port, other_port = free_port(), free_port()
    servers = {ONE: members[0].port, TWO: members[1].port}
    one = amphora.render({LISTENER: port}, servers, pool_id=POOL)
    two = amphora.render({LISTENER: port, OTHER: other_port}, servers, pool_id=POOL)
    controller = amphora.controller()
    controller.apply(amphora.load_balancer_id, one)
    with Crowd(port) as crowd:
        for _ in range(3):
            answer = controller.apply(amphora.load_balancer_id, two, base=digest(one), reload=True)
            assert (answer.status, answer.json["action"]) == (200, "reload")
            assert serves(other_port)
            answer = controller.apply(amphora.load_balancer_id, one, base=digest(two), reload=True)
            assert (answer.status, answer.json["action"]) == (200, "reload")
            wait_for(lambda: serves(other_port) is None)
    assert crowd.failures == []


def test_refused_command_becomes_a_reload(amphora: Amphora, members: list[Member]) -> None:
    port = free_port()
    one = amphora.render({LISTENER: port}, {ONE: members[0].port}, pool_id=POOL)
    two = amphora.render({LISTENER: port}, {TWO: members[1].port}, pool_id=POOL)
    controller = amphora.controller()
    controller.apply(amphora.load_balancer_id, one)
    answer = controller.apply(
        amphora.load_balancer_id, two, base=digest(one), commands=(f"set server {POOL}:{LISTENER}/{THREE} weight 3",)
    )
    assert (answer.status, answer.json["action"]) == (200, "reload")
    assert "No such server" in answer.json["fallback"]
    assert get(port) == "two"


def test_bad_configuration_is_refused_and_the_old_goes_on(amphora: Amphora, members: list[Member]) -> None:
    port = free_port()
    good = amphora.render({LISTENER: port}, {ONE: members[0].port}, pool_id=POOL)
    controller = amphora.controller()
    controller.apply(amphora.load_balancer_id, good)
    before = controller.state(amphora.load_balancer_id)
    answer = controller.apply(amphora.load_balancer_id, good + "    nonsense here\n", base=digest(good))
    assert answer.status == 400
    assert "nonsense" in answer.json["details"]
    assert str(amphora.directory) not in answer.json["details"]
    assert controller.state(amphora.load_balancer_id) == before
    assert get(port) == "one"


def test_commands_of_a_refused_text_are_undone(amphora: Amphora, members: list[Member]) -> None:
    """The commands run before the text is judged; when it is refused, what runs is the file on disk again."""
    port = free_port()
    good = amphora.render({LISTENER: port}, {ONE: members[0].port, TWO: members[1].port}, pool_id=POOL)
    controller = amphora.controller()
    controller.apply(amphora.load_balancer_id, good)
    command = f"set server {POOL}:{LISTENER}/{TWO} state maint"
    with Crowd(port) as crowd:
        refused = controller.apply(
            amphora.load_balancer_id, good + "\nnonsense\n", base=digest(good), commands=(command,)
        )
        assert refused.status == 400
        assert "nonsense" in refused.json["details"]
    assert crowd.failures == []
    assert controller.state(amphora.load_balancer_id)["digest"] == digest(good)
    wait_for(lambda: {get(port), get(port)} == {"one", "two"})


def test_failing_reload_keeps_worker_and_file(amphora: Amphora, members: list[Member]) -> None:
    """The text passes the check, but no kernel gives a new worker so many descriptors."""
    port = free_port()
    good = amphora.render({LISTENER: port}, {ONE: members[0].port}, pool_id=POOL)
    bad = good.replace("    nbthread 1\n", "    nbthread 1\n    ulimit-n 2000000000\n")
    controller = amphora.controller()
    controller.apply(amphora.load_balancer_id, good)
    with Crowd(port) as crowd:
        answer = controller.apply(amphora.load_balancer_id, bad, base=digest(good), reload=True)
        assert answer.status == 500
        assert "limit" in answer.json["details"]
    assert crowd.failures == []
    state = controller.state(amphora.load_balancer_id)
    assert (digest(good), True) == (state["digest"], state["running"])
    better = amphora.render({LISTENER: port}, {TWO: members[1].port}, pool_id=POOL)
    answer = controller.apply(amphora.load_balancer_id, better, base=digest(good), reload=True)
    assert (answer.status, answer.json["action"]) == (200, "reload")
    assert get(port) == "two"


def test_bind_conflict_is_named_and_heals(amphora: Amphora, members: list[Member]) -> None:
    port = free_port()
    good = amphora.render({LISTENER: port}, {ONE: members[0].port}, pool_id=POOL)
    controller = amphora.controller()
    controller.apply(amphora.load_balancer_id, good)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((ADDRESS, 0))
        taken.listen()
        taken_port = taken.getsockname()[1]
        more = amphora.render({LISTENER: port, OTHER: taken_port}, {ONE: members[0].port}, pool_id=POOL)
        answer = controller.apply(amphora.load_balancer_id, more, base=digest(good), reload=True)
        assert answer.status == 422
        assert answer.json["binds"] == [
            {"frontend": OTHER, "address": ADDRESS, "port": taken_port, "errno": "EADDRINUSE"}
        ]
        assert get(port) == "one"
    answer = controller.apply(amphora.load_balancer_id, more, base=digest(good), reload=True)
    assert (answer.status, answer.json["action"]) == (200, "reload")
    assert get(taken_port) == "one"


def test_address_that_is_not_here_is_named(amphora: Amphora) -> None:
    text = amphora.render({LISTENER: 8080}, address="192.0.2.1")
    answer = amphora.controller().apply(amphora.load_balancer_id, text)
    assert answer.status == 422
    assert [bind["errno"] for bind in answer.json["binds"]] == ["EADDRNOTAVAIL"]


def test_other_base_is_a_conflict(amphora: Amphora, members: list[Member]) -> None:
    port = free_port()
    text = amphora.render({LISTENER: port}, {ONE: members[0].port}, pool_id=POOL)
    controller = amphora.controller()
    answer = controller.apply(amphora.load_balancer_id, text, base="0" * 64)
    assert (answer.status, answer.json) == (409, {"current": None})
    controller.apply(amphora.load_balancer_id, text)
    answer = controller.apply(amphora.load_balancer_id, text + "# other\n", base="0" * 64)
    assert (409, {"current": digest(text)}) == (answer.status, answer.json)
    found = controller.call("GET", f"/1.0/loadbalancer/{amphora.load_balancer_id}/haproxy")
    assert (200, text) == (found.status, found.body.decode())


def test_who_waited_for_a_delete_brings_nothing_back(pki: Pki) -> None:
    """What he would start, nobody would watch: the agent has forgotten the one that he holds."""
    amphora = Amphora(pki)
    agent = Agent(load_settings(str(amphora.config)))
    held = agent.ensure(amphora.load_balancer_id)
    agent.delete(amphora.load_balancer_id)
    text = amphora.render({LISTENER: free_port()})
    with pytest.raises(BaseMismatch):
        held.apply(Change(text, haproxy_text.digest(text), None, (), True))
    with pytest.raises(Missing):
        held.upload(text)
    assert not Path(held.places.directory).exists()
    amphora.close()


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"digest": "0" * 64}, id="digest of something else"),
        pytest.param({"config": 3}, id="config no text"),
        pytest.param({"commands": ["show info;show stat"]}, id="two commands in one"),
        pytest.param({"commands": ["show info\nshow stat"]}, id="two lines in one"),
        pytest.param({"commands": "show info"}, id="commands no list"),
        pytest.param({"reload": 1}, id="reload no boolean"),
        pytest.param({"surprise": 1}, id="unknown key"),
    ],
)
def test_malformed_apply_changes_nothing(amphora: Amphora, changed: dict[str, object]) -> None:
    controller = amphora.controller()
    answer = controller.apply(amphora.load_balancer_id, amphora.render({}), changed=changed)
    assert answer.status == 400
    assert controller.state(amphora.load_balancer_id)["digest"] is None
    assert amphora.haproxies() == []


def test_haproxy_is_restarted_on_a_disk_that_takes_nothing(amphora: Amphora, members: list[Member]) -> None:
    """Also while a member that is gone has a connection still, of which a new haproxy knows nothing."""
    lb, port = amphora.load_balancer_id, free_port()
    both = amphora.render({LISTENER: port}, {ONE: members[0].port, TWO: members[1].port}, pool_id=POOL)
    one = amphora.render({LISTENER: port}, {ONE: members[0].port}, pool_id=POOL)
    backend, controller = f"{POOL}:{LISTENER}", amphora.controller()
    controller.apply(lb, one)
    add = (
        f"add server {backend}/{TWO} {MEMBER_ADDRESS}:{members[1].port}",
        f"enable server {backend}/{TWO}",
        f"disable server {backend}/{ONE}",
    )
    assert controller.apply(lb, both, base=digest(one), commands=add).json["action"] == "runtime"
    with socket.create_connection((ADDRESS, port), 5) as held:
        held.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        assert members[1].waiting.wait(5)
        remove = (f"enable server {backend}/{ONE}", f"disable server {backend}/{TWO}", f"del server {backend}/{TWO}")
        controller.apply(lb, one, base=digest(both), commands=remove)
        assert controller.state(lb)["removing"] == [f"{backend}/{TWO}"]
        record = amphora.base / lb / "agent.json"
        record.unlink()
        record.mkdir()  # whoever would put a file in its place is told that he cannot
        os.kill(wait_for(amphora.haproxies)[0], signal.SIGKILL)
        wait_for(lambda: serves(port))
        assert get(port) == "one"
        answer = controller.apply(lb, both, base=digest(one), commands=add)
        assert (answer.status, "Is a directory" in answer.body.decode()) == (500, True)
    members[1].release.set()
    record.rmdir()


def test_server_with_connections_is_removed_later(amphora: Amphora, members: list[Member]) -> None:
    port = free_port()
    both = amphora.render({LISTENER: port}, {ONE: members[0].port, TWO: members[1].port}, pool_id=POOL)
    one = amphora.render({LISTENER: port}, {ONE: members[0].port}, pool_id=POOL)
    backend = f"{POOL}:{LISTENER}"
    controller = amphora.controller()
    controller.apply(amphora.load_balancer_id, one)
    add = (
        f"add server {backend}/{TWO} {MEMBER_ADDRESS}:{members[1].port}",
        f"enable server {backend}/{TWO}",
        f"disable server {backend}/{ONE}",
    )
    assert controller.apply(amphora.load_balancer_id, both, base=digest(one), commands=add).json["action"] == "runtime"
    said: list[str] = []
    slow = threading.Thread(target=lambda: said.append(get(port, "/slow", 20)))
    slow.start()
    assert members[1].waiting.wait(5)
    remove = (f"enable server {backend}/{ONE}", f"disable server {backend}/{TWO}", f"del server {backend}/{TWO}")
    answer = controller.apply(amphora.load_balancer_id, one, base=digest(both), commands=remove)
    assert (answer.status, answer.json["action"]) == (200, "runtime")
    assert controller.state(amphora.load_balancer_id)["removing"] == [f"{backend}/{TWO}"]
    members[1].release.set()
    slow.join()
    assert said == ["two"]
    wait_for(lambda: controller.state(amphora.load_balancer_id)["removing"] == [])


def test_certificate_is_replaced_without_a_reload(amphora: Amphora, members: list[Member]) -> None:
    lb, port = amphora.load_balancer_id, free_port()
    controller = amphora.controller()
    old, new = (amphora.pki.server_ca.issue_pem("www.example") for _ in range(2))
    name = f"{amphora.certificates}/{lb}/site.pem"

    def upload(file: str, content: bytes) -> None:
        assert controller.call("PUT", f"/1.0/loadbalancer/{lb}/certificates/{file}", content).status == 200

    def served() -> bytes | None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with context.wrap_socket(socket.create_connection((ADDRESS, port))) as connection:
            return connection.getpeercert(binary_form=True)

    def der(pem: bytes) -> bytes:
        return ssl.PEM_cert_to_DER_cert(pem.decode().partition("-----BEGIN EC")[0])

    upload("site.pem", old)
    upload("list.pem", f"{name}\n".encode())
    text = amphora.render({LISTENER: port}, {ONE: members[0].port}, pool_id=POOL)
    text = text.replace(
        f"bind {ADDRESS}:{port}", f"bind {ADDRESS}:{port} ssl crt-list {amphora.certificates}/{lb}/list.pem"
    )
    assert controller.apply(lb, text).json["action"] == "start"
    assert served() == der(old)
    upload("site.pem", new)
    commands = (f"set ssl cert {name} <<\n{new.decode()}", f"commit ssl cert {name}")
    answer = controller.apply(lb, text + "# new certificate\n", base=digest(text), commands=commands)
    assert (answer.status, answer.json["action"]) == (200, "runtime")
    assert served() == der(new)


def test_what_is_about_a_version_that_was_not_prepared_becomes_a_reload(
    amphora: Amphora, members: list[Member]
) -> None:
    """haproxy would take `@prepared` for the version that runs, and change what it shall not."""
    controller, port = amphora.controller(), free_port()
    one = amphora.render({LISTENER: port}, {ONE: members[0].port}, pool_id=POOL)
    controller.apply(amphora.load_balancer_id, one)
    commands = ("prepare acl nowhere", "add acl @prepared nowhere x", "commit acl @prepared nowhere")
    answer = controller.apply(amphora.load_balancer_id, f"{one}\n", base=digest(one), commands=commands).json
    assert (answer["action"], "prepare acl nowhere" in answer["fallback"]) == ("reload", True)

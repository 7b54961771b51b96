"""What is broken off half way leaves nothing behind: not a server, not a haproxy, not an old file."""

import contextlib
import hashlib
import http.client
import os
import shutil
import signal
import socket
import threading
import uuid

import pytest

from tests.amphora.world import ADDRESS, MEMBER_ADDRESS, Amphora, Member, free_port, get, wait_for

pytestmark = pytest.mark.integration

LISTENER, POOL, ONE, TWO = (str(uuid.UUID(int=number)) for number in (1, 3, 11, 12))
BACKEND = f"{POOL}:{LISTENER}"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def servers(amphora: Amphora) -> set[str]:
    """Names of the servers that haproxy has now."""
    from frontinus_amphora.haproxy_cli import ask

    assert amphora.process is not None
    answer = ask(f"/proc/{amphora.process.pid}/cwd/{amphora.load_balancer_id}.sock", "show servers state")
    return {line.split()[3] for line in answer.splitlines()[2:] if line.strip()}


def test_commands_of_a_killed_agent_are_undone(amphora: Amphora, members: list[Member]) -> None:
    """The file never came to say what the commands did, and the controller does not ask for the same again."""
    lb = amphora.load_balancer_id
    port = free_port()
    text = amphora.render({LISTENER: port}, {ONE: members[0].port}, pool_id=POOL)
    amphora.controller().apply(lb, text)
    both = amphora.render({LISTENER: port}, {ONE: members[0].port, TWO: members[1].port}, pool_id=POOL)
    commands = (
        f"add server {BACKEND}/{TWO} {MEMBER_ADDRESS}:{members[1].port} weight 1",
        f"enable server {BACKEND}/{TWO}",
        *(f"set server {BACKEND}/{ONE} weight {1 + number % 2}" for number in range(9_000)),  # time to be killed in
    )

    def ask_in_vain() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            amphora.controller().apply(lb, both, base=digest(text), commands=commands)

    asking = threading.Thread(target=ask_in_vain)
    asking.start()
    wait_for(lambda: TWO in servers(amphora))
    amphora.kill()
    asking.join()
    amphora.start()
    controller = amphora.controller()
    assert controller.apply(lb, text).status == 200
    assert controller.state(lb)["digest"] == digest(text)
    assert servers(amphora) == {ONE}
    assert {get(port) for _ in range(4)} == {"one"}


def test_place_that_was_wiped_takes_one_push(amphora: Amphora, members: list[Member]) -> None:
    """The haproxy of before still holds the address, and nothing on disk tells of it."""
    lb = amphora.load_balancer_id
    port = free_port()
    text = amphora.render({LISTENER: port}, {ONE: members[0].port}, pool_id=POOL)
    amphora.controller().apply(lb, text)
    amphora.kill()
    shutil.rmtree(amphora.base)
    amphora.start()
    answer = amphora.controller().apply(lb, text)
    assert (answer.status, answer.json["action"]) == (200, "start")
    assert get(port) == "one"
    assert len(amphora.haproxies()) == 2  # a master and its worker


def test_upload_that_cannot_be_loaded_gives_way_to_what_ran(amphora: Amphora, members: list[Member]) -> None:
    lb = amphora.load_balancer_id
    port, taken = free_port(), free_port()
    first = amphora.render({LISTENER: port}, {ONE: members[0].port}, pool_id=POOL)
    second = first + "# second\n"
    third = first.replace(f":{port}\n", f":{taken}\n")
    controller = amphora.controller()
    controller.apply(lb, first)
    controller.apply(lb, second, base=digest(first), reload=True)
    first += "# first\n"
    assert controller.apply(lb, first, base=digest(second)).json["action"] == "runtime"
    with socket.create_server((ADDRESS, taken)):
        assert controller.call("PUT", f"/1.0/loadbalancer/{amphora.id}/{lb}/haproxy", third).status == 202
        assert controller.call("PUT", f"/1.0/loadbalancer/{lb}/reload").status == 500
    assert controller.state(lb)["digest"] == digest(first)
    assert get(port) == "one"


def test_upload_that_cannot_be_loaded_does_not_keep_haproxy_from_coming_back(
    amphora: Amphora, members: list[Member]
) -> None:
    lb = amphora.load_balancer_id
    port, taken = free_port(), free_port()
    text = amphora.render({LISTENER: port}, {ONE: members[0].port}, pool_id=POOL)
    controller = amphora.controller()
    controller.apply(lb, text)
    with socket.create_server((ADDRESS, taken)):
        uploaded = text.replace(f":{port}\n", f":{taken}\n")
        controller.call("PUT", f"/1.0/loadbalancer/{amphora.id}/{lb}/haproxy", uploaded)
        os.kill(controller.state(lb)["pid"], signal.SIGKILL)
        wait_for(lambda: "haproxy restarted" in amphora.log.read_text())
        assert get(port) == "one"

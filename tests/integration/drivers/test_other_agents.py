"""Agents that are not ours, or not of our time: Octavia's plain protocol is enough, and what makes no sense is told."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import web

from frontinus.drivers.amphora.agent.authority import Authority, utc_now
from frontinus.drivers.amphora.agent.driver import serves
from frontinus.drivers.amphora.haproxy.driver import HaproxyDriver
from frontinus.drivers.amphora.haproxy.render import rendered
from frontinus.drivers.amphora.haproxy.settings import HaproxySettings
from frontinus.model.errors import Incompatible, Rejected, Retry
from frontinus.model.tree import Amphora

from tests.integration.drivers.world import AGENT, free_port
from tests.unit.drivers.trees import AMPHORA, LOAD_BALANCER, a_listener, a_tree, an_amphora


@dataclass
class PlainAgent:
    """The part of Octavia's agent that the driver uses (contract/amphora-agent.yaml), in memory.

    `answers` replaces the answer to a request, by method and path."""

    api_version: str = "1.0"
    text: str | None = None
    running: str | None = None
    requests: list[str] = field(default_factory=list)
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        line = f"{request.method} {request.path.replace(LOAD_BALANCER, 'LB').replace(AMPHORA, 'AMPHORA')}"
        self.requests.append(line)
        if line in self.answers:
            status, body = self.answers[line]
            return web.Response(status=status, body=body, content_type="application/json")
        match line:
            case "GET /":
                return web.json_response({"api_version": self.api_version})
            case "GET /1.0/info":
                return web.json_response(
                    {"hostname": "amphora", "haproxy_version": "2.4.22", "api_version": self.api_version}
                )
            case "PUT /1.0/loadbalancer/AMPHORA/LB/haproxy":
                text = await request.text()
                if "nonsense" in text:
                    return web.json_response({"message": "Invalid request", "details": "no such word"}, status=400)
                self.text = text
                return web.json_response({"message": "OK"}, status=202)
            case "GET /1.0/loadbalancer/LB/haproxy" if self.text is not None:
                return web.Response(text=self.text)
            case "PUT /1.0/loadbalancer/LB/reload" if self.text is not None:
                self.running = self.text
                return web.json_response({"message": "OK", "details": "reloaded"}, status=202)
            case "DELETE /1.0/listeners/LB":
                self.text = self.running = None
                return web.json_response({"message": "OK"})
            case "GET /frontinus":
                return web.Response(status=404, text="<h1>Not Found</h1>", content_type="text/html")
            case _:
                return web.json_response({"message": "Not Found", "details": line}, status=404)


@dataclass
class Scene:
    agent: PlainAgent
    driver: HaproxyDriver
    amphora: Amphora


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    settings = HaproxySettings(state_dir=tmp_path, agent_port=free_port(AGENT), base_path="/var/lib/octavia")
    driver = HaproxyDriver(settings)
    authority = Authority.open(settings.authority_directory)
    (tmp_path / "server.pem").write_bytes(authority.issue_server(AMPHORA, timedelta(days=30)))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=authority.bundle.decode())
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_cert_chain(tmp_path / "server.pem")
    agent = PlainAgent()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", agent.handle)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, AGENT, settings.agent_port, ssl_context=tls).start()
    yield Scene(agent, driver, an_amphora(AGENT, created_at=utc_now()))
    await driver.close()
    await runner.cleanup()


TREE = a_tree(listeners=[a_listener(pool=None)])


async def test_a_plain_agent_gets_upload_and_reload(scene: Scene) -> None:
    text = scene.driver.render(TREE, scene.amphora)
    applied = await scene.driver.apply(scene.amphora, TREE, text)
    assert (applied.action, applied.digest) == ("reload", text.digest)
    assert scene.agent.running == text.text
    assert (await scene.driver.apply(scene.amphora, TREE, text)).action == "unchanged"
    # Somebody else uploads something: what is remembered is not believed.
    scene.agent.text = scene.agent.running = "global\n"
    assert (await scene.driver.apply(scene.amphora, TREE, text)).action == "reload"
    assert scene.agent.running == text.text


async def test_info_of_a_plain_agent(scene: Scene) -> None:
    nothing = await scene.driver.info(scene.amphora, TREE)
    assert (nothing.extension, nothing.running, nothing.digest) == (None, False, None)
    assert nothing.balancer_version == "2.4.22"
    text = scene.driver.render(TREE, scene.amphora)
    await scene.driver.apply(scene.amphora, TREE, text)
    assert (await scene.driver.info(scene.amphora, TREE)).digest == text.digest


async def test_nothing_to_listen_for_deletes_the_object(scene: Scene) -> None:
    await scene.driver.apply(scene.amphora, TREE, scene.driver.render(TREE, scene.amphora))
    assert (await scene.driver.apply(scene.amphora, TREE, rendered(""))).action == "stop"
    assert scene.agent.running is None


async def test_versions_are_asked_once_and_again_after_trouble(scene: Scene) -> None:
    for _ in range(3):
        await scene.driver.info(scene.amphora, TREE)
    assert scene.agent.requests.count("GET /") == scene.agent.requests.count("GET /frontinus") == 1
    scene.agent.answers["PUT /1.0/loadbalancer/LB/reload"] = (500, b'{"message": "Error", "details": "no memory"}')
    with pytest.raises(Retry, match="no memory"):
        await scene.driver.apply(scene.amphora, TREE, scene.driver.render(TREE, scene.amphora))
    await scene.driver.info(scene.amphora, TREE)
    assert scene.agent.requests.count("GET /") == 2


async def test_a_text_that_is_refused_is_rejected(scene: Scene) -> None:
    with pytest.raises(Rejected, match="no such word"):
        await scene.driver.apply(scene.amphora, TREE, rendered("nonsense"))


@pytest.mark.parametrize(
    "answer, found",
    [
        ((200, b'{"api_version": "0.5"}'), "API 0.5"),
        ((200, b'{"api_version": "2.0"}'), "API 2.0"),
        ((404, b"{}"), "API 0.5"),
    ],
)
async def test_other_versions_are_incompatible(scene: Scene, answer: tuple[int, bytes], found: str) -> None:
    scene.agent.answers["GET /"] = answer
    with pytest.raises(Incompatible) as raised:
        await scene.driver.info(scene.amphora, TREE)
    assert raised.value.found == found


@pytest.mark.parametrize(
    "extension, found",
    [
        (b'{"extension": 2, "agent_version": "0.1.0"}', "extension 2"),
        (b'{"extension": 1, "agent_version": "1.0.0"}', "1.0.0"),
        (b'{"extension": 1, "agent_version": "who knows"}', "who knows"),
    ],
)
async def test_other_agents_of_ours_are_incompatible(scene: Scene, extension: bytes, found: str) -> None:
    scene.agent.answers["GET /frontinus"] = (200, extension)
    with pytest.raises(Incompatible) as raised:
        await scene.driver.apply(scene.amphora, TREE, scene.driver.render(TREE, scene.amphora))
    assert raised.value.found == found
    # A newer image is asked anew.
    del scene.agent.answers["GET /frontinus"]
    assert (await scene.driver.info(scene.amphora, TREE)).extension is None


@pytest.mark.parametrize(
    "request_line, status, body, code",
    [
        ("GET /", 200, b"<html>", "agent-error"),
        ("GET /", 200, b"[]", "agent-error"),
        ("GET /", 503, b"busy", "agent-error"),
        ("GET /", 403, b'{"error": "not you"}', "agent-identity"),
        ("GET /frontinus", 200, b"{}", "agent-error"),
        ("GET /frontinus", 500, b"\xff\xfe", "agent-error"),
        ("GET /1.0/info", 200, b"null", "agent-error"),
        ("GET /1.0/loadbalancer/LB/haproxy", 200, b"\xff", "agent-error"),
        ("GET /1.0/loadbalancer/LB/haproxy", 500, b"{}", "agent-error"),
        ("GET /1.0/loadbalancer/LB/haproxy", 302, b"{}", "agent-error"),
    ],
)
async def test_answers_that_make_no_sense_are_tried_again(
    scene: Scene, request_line: str, status: int, body: bytes, code: str
) -> None:
    scene.agent.answers[request_line] = (status, body)
    with pytest.raises(Retry) as raised:
        await scene.driver.info(scene.amphora, TREE)
    assert raised.value.code == code


@pytest.mark.parametrize(
    "status, body",
    [(200, b"{}"), (200, b'{"digest": 5, "action": "x"}'), (422, b"{}"), (422, b'{"binds": [{"frontend": "x"}]}')],
)
async def test_answers_of_the_extension_that_make_no_sense_are_tried_again(
    scene: Scene, status: int, body: bytes
) -> None:
    scene.agent.answers["GET /frontinus"] = (200, b'{"extension": 1, "agent_version": "0.1.0"}')
    scene.agent.answers["PUT /frontinus/1/loadbalancer/LB"] = (status, body)
    with pytest.raises(Retry):
        await scene.driver.apply(scene.amphora, TREE, scene.driver.render(TREE, scene.amphora))


async def test_a_base_that_never_holds_still_is_tried_again_later(scene: Scene) -> None:
    scene.agent.answers["GET /frontinus"] = (200, b'{"extension": 1, "agent_version": "0.1.0"}')
    scene.agent.answers["PUT /frontinus/1/loadbalancer/LB"] = (409, b'{"current": null}')
    with pytest.raises(Retry) as raised:
        await scene.driver.apply(scene.amphora, TREE, scene.driver.render(TREE, scene.amphora))
    assert raised.value.code == "agent-contended"


@pytest.mark.parametrize(
    "version, served",
    [("0.1.0", True), ("0.1", True), ("0.9.12", True), ("0.0.9", False), ("1.0.0", False), ("", False), ("x", False)],
)
def test_served_versions(version: str, served: bool) -> None:
    assert serves(version) is served

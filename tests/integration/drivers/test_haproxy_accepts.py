"""What the writer quotes, HAProxy reads; what is rendered, HAProxy loads: golden files, and trees of all kinds."""

from __future__ import annotations

import http.client
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from frontinus.drivers.amphora.haproxy.diff import diff_texts
from frontinus.drivers.amphora.haproxy.persistence import LOCAL_PEER
from frontinus.drivers.amphora.haproxy.render import render
from frontinus.drivers.amphora.haproxy.settings import HaproxySettings
from frontinus.drivers.amphora.haproxy.text import Section, write
from frontinus.drivers.amphora.haproxy.versions import version_of
from frontinus.drivers.amphora.interface import RenderedFile
from frontinus.model.tree import LoadBalancerTree

from tests.golden.cases import CASES, FILES, tree_of
from tests.integration.drivers.balancer import lay_out
from tests.integration.drivers.nginx_check import check_nginx
from tests.integration.drivers.strategies import SECRETS, trees, words
from tests.integration.drivers.world import HAPROXY, VIP, free_port, haproxy_version

SETTINGS = HaproxySettings(state_dir=Path("/nowhere"))
HERE = version_of(haproxy_version())
QUICK = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def check(directory: Path, text: str) -> subprocess.CompletedProcess[str]:
    file = directory / "haproxy.cfg"
    file.write_text(text, encoding="utf-8")
    return subprocess.run(
        [HAPROXY, "-c", "-L", LOCAL_PEER, "-f", str(file)],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_golden_files_load(case: Path, tmp_path: Path) -> None:
    text = (case / "haproxy.cfg").read_text()
    if text:
        files = [RenderedFile(name=x.name, content=x.read_bytes(), private=False) for x in (case / FILES).glob("*")]
        lay_out(tmp_path, files, tree_of(case).id)
        checked = check(tmp_path, text)
        assert checked.returncode == 0, checked.stderr


@QUICK
@given(tree=trees())
def test_every_accepted_tree_loads(tmp_path: Path, tree: LoadBalancerTree) -> None:
    rendered = render(tree, SETTINGS, SECRETS, version=HERE)
    assert rendered == render(tree, SETTINGS, SECRETS, version=HERE)
    assert diff_texts(rendered.text, rendered.text).commands == ()
    if any(file.name == "datagrams.conf" for file in rendered.files):
        # nginx binds in its check, so the address must be one of this machine.
        here = replace(tree.load_balancer.vip, address=VIP)
        at_home = replace(tree, load_balancer=replace(tree.load_balancer, vip=here))
        assert check_nginx(tmp_path, at_home, render(at_home, SETTINGS, SECRETS).files) == ""
    if rendered.text:
        lay_out(tmp_path, rendered.files, tree.id)
        checked = check(tmp_path, rendered.text)
        assert checked.returncode == 0, checked.stderr


@settings(QUICK, max_examples=15)
@given(written=st.lists(words(), min_size=1, max_size=60))
def test_haproxy_reads_exactly_what_was_written(tmp_path: Path, written: list[str]) -> None:
    """Each word is served as a body: HAProxy tells us, byte by byte, what it understood."""
    port = free_port()
    frontend = [
        ("mode", "http"),
        ("bind", f"{VIP}:{port}"),
        *(
            (
                *["http-request", "return", "status", "200", "content-type", "text/plain", "string"],
                word,
                "if",
                "{",
                "path",
                f"/{index}",
                "}",
            )
            for index, word in enumerate(written)
        ),
    ]
    text = write(
        (
            Section("defaults", "", tuple(("timeout", side, "5s") for side in ("client", "server", "connect"))),
            Section("frontend", "words", tuple(frontend)),
        )
    )
    checked = check(tmp_path, text)
    assert checked.returncode == 0, checked.stderr
    with subprocess.Popen(
        [HAPROXY, "-db", "-f", str(tmp_path / "haproxy.cfg")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as haproxy:
        try:
            connection = connect(port)
            for index, word in enumerate(written):
                connection.request("GET", f"/{index}")
                assert connection.getresponse().read() == word.encode()
            connection.close()
        finally:
            haproxy.kill()


def connect(port: int) -> http.client.HTTPConnection:
    """A connection to a HAProxy that is just starting."""
    deadline = time.monotonic() + 10
    while True:
        connection = http.client.HTTPConnection(VIP, port, timeout=5)
        try:
            connection.connect()
        except ConnectionRefusedError:
            connection.close()
            assert time.monotonic() < deadline
        else:
            return connection

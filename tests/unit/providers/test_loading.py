"""How drivers and agents of octavia-lib are found, what is ready before they are loaded, and who keeps agents running."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from frontinus.drivers.provider.agents import ProviderAgents, chosen
from frontinus.drivers.provider.octavia import OctaviaProvider
from frontinus.model.errors import Invalid

from tests.integration.places.machine import until

SOCKETS = ("/nowhere/status", "/nowhere/stats", "/nowhere/get")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Installs a vendor's module with the driver `Driver` and the agents `agent` and `other`, under the name `exam`."""

    def install(source: str) -> None:
        site = tmp_path / "site"
        points = site / "vendor_of_exam-1.0.dist-info"
        points.mkdir(parents=True)
        (points / "METADATA").write_text("Metadata-Version: 2.1\nName: vendor-of-exam\nVersion: 1.0\n")
        (points / "entry_points.txt").write_text(
            "[octavia.api.drivers]\nexam = vendor_of_exam:Driver\n"
            "[octavia.driver_agent.provider_agents]\nexam = vendor_of_exam:agent\nother = vendor_of_exam:other\n"
        )
        (site / "vendor_of_exam.py").write_text(textwrap.dedent(source))
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.setenv("PYTHONPATH", f"{site}:{os.environ.get('PYTHONPATH', '')}")
        monkeypatch.setenv("EXAM_DIR", str(tmp_path))
        sys.modules.pop("vendor_of_exam", None)

    return install


def settings_file(tmp_path: Path, text: str = "[exam]\nwhere = there\n") -> Path:
    file = tmp_path / "octavia.conf"
    file.write_text(text)
    return file


DRIVER = """
from octavia_lib.api.drivers import driver_lib, provider_base
from oslo_config import cfg

cfg.CONF.register_opts([cfg.StrOpt("where", default="nowhere")], group="exam")
AT_IMPORT = cfg.CONF.exam.where

class Driver(provider_base.ProviderDriver):
    def __init__(self):
        super().__init__()
        cfg.CONF.register_opts([cfg.StrOpt("other", default="unsaid")], group="exam")
        self.saw = (AT_IMPORT, cfg.CONF.exam.where, cfg.CONF.exam.other)
        self.sockets = driver_lib.DriverLibrary.__init__.__defaults__

    def agent(self):
        pass
"""


async def test_settings_are_read_before_a_driver_registers_its_own(
    tmp_path: Path, installed: Callable[[str], None]
) -> None:
    """While it is imported, while it is made, and from files only that were named."""
    installed(DRIVER)
    file = settings_file(tmp_path, "[exam]\nwhere = there\nother = said\n")
    made = await OctaviaProvider.load("exam", SOCKETS, [file])
    assert made._driver.saw == ("there", "there", "said")
    assert made._driver.sockets == SOCKETS
    assert (made.name, made.version) == ("provider:exam", "1.0")
    made.close()


async def test_without_files_a_driver_has_its_defaults(installed: Callable[[str], None]) -> None:
    installed(DRIVER)
    made = await OctaviaProvider.load("exam", SOCKETS)
    assert made._driver.saw == ("nowhere", "nowhere", "unsaid")
    made.close()


async def test_a_file_that_is_not_there_is_named(tmp_path: Path, installed: Callable[[str], None]) -> None:
    installed(DRIVER)
    with pytest.raises(Invalid) as caught:
        await OctaviaProvider.load("exam", SOCKETS, [tmp_path / "missing.conf"])
    assert caught.value.field == "provider.driver_config_files"
    assert "missing.conf" in caught.value.reason


AGENTS = """
import os
from pathlib import Path
from octavia_lib.api.drivers import driver_lib
from oslo_config import cfg

HERE = Path(os.environ["EXAM_DIR"])
cfg.CONF.register_opts([cfg.StrOpt("where", default="nowhere")], group="exam")

class Driver:
    pass

def note(word):
    with (HERE / "journal").open("a") as journal:
        journal.write(f"{word} {os.getpid()}\\n")

def agent(ended):
    note("begins")
    note(cfg.CONF.exam.where + driver_lib.DriverLibrary.__init__.__defaults__[0])
    if not (HERE / "failed").exists():
        (HERE / "failed").touch()
        raise ZeroDivisionError
    ended.wait()
    note("ends")

def other(ended):
    note("done")
"""


def test_which_agents_run(installed: Callable[[str], None]) -> None:
    installed(AGENTS)
    assert chosen("exam", None) == ("exam",)
    assert chosen("unheard-of", None) == ()
    assert chosen("exam", ("other",)) == ("other",)
    assert chosen("exam", ()) == ()
    with pytest.raises(Invalid, match="missing"):
        chosen("exam", ("missing",))


async def test_an_agent_is_kept_running_until_it_is_told_to_end(
    tmp_path: Path, installed: Callable[[str], None]
) -> None:
    """One that raised is called again, one that was killed is started again, one that returned is done."""
    installed(AGENTS)
    journal = tmp_path / "journal"

    def said(word: str) -> list[int]:
        lines = [x.split() for x in journal.read_text().splitlines()] if journal.exists() else []
        return [int(pid) for name, pid in lines if name == word]

    agents = ProviderAgents(("exam", "other"), SOCKETS, [settings_file(tmp_path)], shutdown_wait=10)
    running = asyncio.create_task(agents.run())
    try:
        await until(lambda: len(said("begins")) == 2 and said("done"), 30)
        first, again = said("begins")
        assert first == again, "an error ends no process"
        assert said("there/nowhere/status") == [first, first]
        os.kill(first, signal.SIGKILL)
        await until(lambda: len(said("begins")) == 3, 30)
        assert said("begins")[2] != first
        assert len(said("done")) == 1
        assert said("ends") == []
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await agents.close()
    assert said("ends") == [said("begins")[2]]

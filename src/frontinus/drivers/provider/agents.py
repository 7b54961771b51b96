"""Provider agents (octavia-lib, `octavia.driver_agent.provider_agents`): programs that a provider wants run beside its driver, such
as OVN's, which watches its databases for what the driver started.

Each in a process of its own: a function that is given an event, and returns soon after that is set. What raises is called
again, what dies is started again, what returns is done (contract/driver-lib.yaml, provider_agents). It ends with us, also when
we are killed. Loaded by the process of a provider only."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import threading
import traceback
from collections.abc import Sequence
from importlib.metadata import entry_points
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Event
from pathlib import Path

import structlog

from frontinus.drivers.provider.loading import prepare
from frontinus.model.errors import Invalid

ENTRY_POINTS = "octavia.driver_agent.provider_agents"
AGAIN_AFTER_S = 1.0
"""As in Octavia: the pause before one that failed is called again."""

log = structlog.get_logger()


def chosen(provider: str, named: Sequence[str] | None) -> tuple[str, ...]:
    """The agents to run: those that are named, or else the one that has the provider's name, if there is one. Raises Invalid."""
    known = {x.name for x in entry_points(group=ENTRY_POINTS)}
    if named is None:
        return (provider,) if provider in known else ()
    for name in named:
        if name not in known:
            raise Invalid(
                "provider.agents", f"no agent {name!r} is installed; installed: {', '.join(sorted(known)) or 'none'}"
            )
    return tuple(named)


class ProviderAgents:
    """The agents of one provider's process. `run` until cancelled, then `close`. Owned by the loop."""

    def __init__(
        self, names: Sequence[str], sockets: tuple[str, str, str], config_files: Sequence[Path], shutdown_wait: float
    ) -> None:
        self._names = names
        self._words = (sockets, tuple(str(x) for x in config_files))
        self._shutdown_wait = shutdown_wait
        self._spawning = multiprocessing.get_context("spawn")
        self._closing = False
        self._running: dict[str, tuple[SpawnProcess, Event]] = {}

    async def run(self) -> None:
        """Keep them running; returns when all have said that they are done."""
        await asyncio.gather(*(self._keep(name) for name in self._names))

    async def close(self) -> None:
        """Tell them to end, and wait; who does not is killed."""
        self._closing = True
        for _, ended in self._running.values():
            # Setting it waits for whoever waits for it: for ever, if that one was killed meanwhile.
            threading.Thread(target=ended.set, daemon=True).start()
        deadline = asyncio.get_running_loop().time() + self._shutdown_wait
        for name, (process, _) in self._running.items():
            left = max(0.0, deadline - asyncio.get_running_loop().time())
            await asyncio.to_thread(process.join, left)
            if process.is_alive():
                log.warning("provider agent does not end; it is killed", agent=name)
                process.kill()
                await asyncio.to_thread(process.join)

    async def _keep(self, name: str) -> None:
        while not self._closing:
            ended = self._spawning.Event()  # one for each: see close
            process = self._spawning.Process(
                target=run_agent, args=(name, *self._words, ended), name=f"provider-agent-{name}", daemon=True
            )
            process.start()
            self._running[name] = (process, ended)
            log.info("provider agent started", agent=name, pid=process.pid)
            await _end_of(process)
            del self._running[name]
            if process.exitcode == 0:
                log.info("provider agent is done", agent=name)
                return
            log.warning("provider agent died", agent=name, exit_status=process.exitcode)
            await asyncio.sleep(AGAIN_AFTER_S)


async def _end_of(process: SpawnProcess) -> None:
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(process.sentinel, over.set)
    try:
        await over.wait()
    finally:
        loop.remove_reader(process.sentinel)
    process.join()  # it has ended: this takes its exit status


def run_agent(name: str, sockets: tuple[str, str, str], config_files: tuple[str, ...], ended: Event) -> None:
    """In the agent's own process: call it until it returns."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for our process, which sets the event
    threading.Thread(target=_end_with_parent, args=(ended,), name="parent", daemon=True).start()
    prepare(sockets, config_files)
    (point, *_) = entry_points(group=ENTRY_POINTS, name=name)
    while not ended.is_set():
        try:
            point.load()(ended)
        except Exception:  # noqa: BLE001 - foreign code: whatever it raises, it is called again
            # As text: what renders tracebacks here shows the values of variables, which may be keys.
            log.warning("provider agent failed", agent=name, trouble=traceback.format_exc())
            ended.wait(AGAIN_AFTER_S)
        else:
            return


def _end_with_parent(ended: Event) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        ended.set()

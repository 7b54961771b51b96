"""The command `frontinus-amphora`: read the settings, join agent and server, wait for a signal.

SIGTERM and SIGINT end the agent, never haproxy; SIGHUP reads the configuration file again.
"""

import gc
import os
import resource
import signal
import sys
import time

from frontinus_amphora import __version__, files
from frontinus_amphora.agent import Agent
from frontinus_amphora.clock import Clock
from frontinus_amphora.log import log
from frontinus_amphora.routes import Routes
from frontinus_amphora.server import Server
from frontinus_amphora.settings import BadSettings, load_settings

MOST_DESCRIPTORS = 1 << 20  # where the kernel sets no bound
USAGE = "usage: frontinus-amphora --config PATH | --version"
SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


def main(arguments: list[str] | None = None) -> int:
    """Run until a signal ends it; the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    if words == ["--version"]:
        print(f"frontinus-amphora {__version__}")
        return 0
    if len(words) == 1 and words[0].startswith("--config="):
        words = ["--config", words[0].removeprefix("--config=")]
    if len(words) != 2 or words[0] != "--config":
        print(USAGE, file=sys.stderr)
        return 2
    return serve(words[1])


def serve(path: str, *, owns_machine: bool = False) -> int:
    """Run the agent of this configuration file. In a machine of its own it sets the clock, which is nobody else's."""
    began = time.monotonic()
    try:
        settings = load_settings(path)
        os.umask(0o077)
        # No core file of us or of haproxy, whose memory holds private keys. One byte and not none: a kernel that pipes
        # core files to a program passes over a limit of 0, but not over 1 (core(5)).
        if resource.getrlimit(resource.RLIMIT_CORE)[1] != 0:  # then it is forbidden already, and cannot be raised
            resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
        # nginx, unlike haproxy, has no more connections than it was born with descriptors.
        _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = hard if 0 <= hard < MOST_DESCRIPTORS else MOST_DESCRIPTORS  # a negative one is none
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        # Relative paths in configurations start here (agent-extension.md, Paths), haproxy's included; and a socket's
        # path stays below the kernel's 108 bytes however deep the place is.
        files.make_directory(settings.base_path)
        os.chdir(settings.base_path)
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # before any thread, so that only sigwait takes them
        agent = Agent(settings)
        routes = Routes(agent)
        clock = Clock(agent.heart.begin_anew)
        server = Server(settings, routes, clock.heed if owns_machine else lambda told: None)
    except (BadSettings, OSError) as error:
        log("cannot start", config=path, error=str(error))
        return 1
    routes.replace_identity = server.replace_identity
    agent.start()
    server.start()
    log(
        "agent listening",
        amphora_id=settings.amphora_id,
        version=__version__,
        host=settings.bind_host,
        port=server.port(),
        took_ms=round((time.monotonic() - began) * 1000, 1),
    )
    gc.collect()
    gc.freeze()  # what is here now stays; later collections need not touch (and so copy) its pages
    while signal.sigwait(SIGNALS) == signal.SIGHUP:
        agent.reread_settings()
    server.stop()
    agent.stop()
    log("agent stopped")
    return 0

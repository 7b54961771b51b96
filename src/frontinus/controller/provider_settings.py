"""How the process of a third-party provider is run: [provider] in the configuration file."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path


@dataclass(frozen=True)
class ProviderSettings:
    socket_dir: Path = Path("/var/run/octavia")
    """Where the driver-agent sockets are: status.sock, stats.sock and get.sock. One directory for each process; drivers
    that name no sockets are told of it."""

    driver_config_files: tuple[Path, ...] = ()
    """Files of oslo.config that the driver reads its own settings from, as octavia.conf with a section [ovn]."""

    agents: tuple[str, ...] | None = None
    """Provider agents (entry point octavia.driver_agent.provider_agents) to run beside the driver, each in a process of its own.
    Not set: the one that has the provider's name, if one is installed."""

    agent_shutdown_wait: timedelta = timedelta(seconds=60)
    """How long an agent may take to end before it is killed; Octavia's provider_agent_shutdown_timeout."""

    report_wait: timedelta = timedelta(seconds=60)
    """How long a driver has to report a call that it accepted, before the call is made again."""

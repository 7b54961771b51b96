"""The API as a part of an installation: what is judged of its settings beforehand, and its server.

A room of its own so that only who serves the API loads it. Next: api/app.py."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

import uvicorn
from prometheus_client import CollectorRegistry

from frontinus.api.app import create_app
from frontinus.api.identity.build import build_authenticator
from frontinus.api.policy.enforcer import Enforcer
from frontinus.api.settings import ApiSettings, check_bind, check_house_settings, check_quotas
from frontinus.drivers.network.interface import NetworkDriver
from frontinus.drivers.secret.interface import SecretDriver
from frontinus.store.engine import Store

Clock = Callable[[], datetime]


def check(settings: ApiSettings, now: Clock) -> None:
    """Judge all that can be judged without touching the machine. Raises Invalid naming the setting in dotted form."""
    check_bind(settings)
    check_quotas(settings)
    check_house_settings(settings)
    build_authenticator(settings, now)
    Enforcer(settings.policy_file, enforce_new_defaults=settings.enforce_new_defaults)


class Front:
    """The API on a socket that listens. Made within the event loop that serves."""

    def __init__(
        self,
        store: Store,
        network: NetworkDriver,
        secrets: SecretDriver,
        settings: ApiSettings,
        now: Clock,
        registry: CollectorRegistry,
    ) -> None:
        self._authenticator = build_authenticator(settings, now)
        app = create_app(
            store, network, settings, now, authenticator=self._authenticator, registry=registry, secrets=secrets
        )
        self._server = _Server(
            uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=3)
        )

    async def serve(self, listening: socket.socket) -> None:
        """Until `stop`."""
        await self._server.serve(sockets=[listening])

    def stop(self) -> None:
        """Take no new request; `serve` ends when those under way are answered."""
        self._server.should_exit = True

    async def close(self) -> None:
        """Let go of what asks others."""
        await self._authenticator.close()


class _Server(uvicorn.Server):
    """uvicorn, less its signal handlers: cli/ owns the signals of the process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

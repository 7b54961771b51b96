"""Join the process of a third-party provider: its driver, the driver-agent sockets, a controller for its load balancers.

A process of its own for each provider, and never the API's: the driver is foreign code that blocks. Next:
controller/provider_loop.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry

from frontinus.controller.metrics import ControllerMetrics
from frontinus.controller.provider_agent import ProviderAgent
from frontinus.controller.provider_loop import ProviderController
from frontinus.controller.provider_reconcile import ProviderHands
from frontinus.main import Drivers, Part, check, require_schema, serve_metrics, shared_clock
from frontinus.model.errors import Invalid
from frontinus.model.ids import ControllerId, new_id
from frontinus.model.tree import LoadBalancerTree, TreeObject
from frontinus.settings import Settings
from frontinus.store.engine import Store


class ProviderInstallation:
    """One provider's process, on a database server that others share."""

    def __init__(self, settings: Settings, provider: str) -> None:
        """Opens the store. Raises Invalid for settings that cannot work, and without the extra `providers`."""
        check(settings, (Part.CONTROLLER,))
        if settings.is_embedded:
            raise Invalid(
                "database", "a provider runs in a process of its own, and the embedded database belongs to one"
            )
        try:
            from frontinus.drivers.provider import octavia  # noqa: F401 - an extra, which may be missing
        except ImportError as error:
            raise Invalid(
                "provider", f"octavia-lib is not installed ({error}); install frontinus with the extra `providers`"
            ) from error
        self._provider = provider
        self._settings = settings
        self._store = Store.open(settings.database_url, connections=settings.database_connections)
        require_schema(self._store)
        self._drivers = Drivers(settings, 0)

    async def run(self, stop: asyncio.Event, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop` is set or the cohort is drained. `ready` is called when the controller runs. Raises Invalid when the driver cannot be loaded, OSError for sockets."""
        from frontinus.drivers.provider.agents import ProviderAgents, chosen
        from frontinus.drivers.provider.octavia import OctaviaProvider
        from frontinus.drivers.provider.sockets import LOOKUP, STATISTICS, STATUS, DriverAgent
        from frontinus.drivers.provider.views import view

        def shown(value: TreeObject, tree: LoadBalancerTree) -> dict[str, Any]:
            told: dict[str, Any] = view(value, tree).to_dict(recurse=True, render_unsets=True)
            return told

        registry = CollectorRegistry()
        clock = shared_clock(self._store, registry)
        await clock.measure()
        agent = ProviderAgent(self._store, shown, clock)
        sockets = DriverAgent(
            self._settings.provider.socket_dir,
            {STATUS: agent.status, STATISTICS: agent.statistics, LOOKUP: agent.lookup},
        )
        settings = self._settings.provider
        agents = ProviderAgents(
            chosen(self._provider, settings.agents),
            sockets.paths,
            settings.driver_config_files,
            settings.agent_shutdown_wait.total_seconds(),
        )
        metrics = serve_metrics(self._settings.metrics, registry)
        await sockets.start()
        beside = [
            asyncio.create_task(agents.run(), name="provider agents"),
            asyncio.create_task(clock.run(), name="clock"),
        ]
        driver: OctaviaProvider | None = None
        working: asyncio.Task[None] | None = None
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            driver = await OctaviaProvider.load(
                self._provider, sockets.paths, self._settings.provider.driver_config_files
            )
            hands = ProviderHands(
                id=ControllerId(new_id()),
                store=self._store,
                driver=driver,
                network=self._drivers.network,
                secret=self._drivers.secret,
                settings=self._settings.controller,
                now=clock,
                report_wait=self._settings.provider.report_wait,
                metrics=ControllerMetrics(registry),
            )
            controller = ProviderController(hands, self._provider)
            await controller.register()
            working = asyncio.create_task(controller.run(), name="provider controller")
            ready()
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()  # it ends by itself when its cohort is drained
        finally:
            stopping.cancel()
            if working is not None:
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await agents.close()
            if driver is not None:
                driver.close()
            await sockets.close()
            if metrics is not None:
                metrics.shutdown()
            await self._drivers.close()
            await self._store.close()

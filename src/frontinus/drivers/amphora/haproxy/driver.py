"""The HAProxy driver: how it renders for HAProxy and nginx, and what of a change HAProxy takes while it runs.

All decisions are in render.py and diff.py; what speaks to the amphora is agent/driver.py."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import ClassVar

from msgspec.structs import replace

from frontinus.drivers.amphora.agent.authority import Clock, utc_now
from frontinus.drivers.amphora.agent.change import Change
from frontinus.drivers.amphora.agent.driver import MEMORY, AgentDriver
from frontinus.drivers.amphora.agent.files import Live
from frontinus.drivers.amphora.agent.lvs import with_lvs
from frontinus.drivers.amphora.agent.vrrp import keepalived_file
from frontinus.drivers.amphora.haproxy.blame import subject_of
from frontinus.drivers.amphora.haproxy.diff import diff
from frontinus.drivers.amphora.haproxy.mending import closing, introduced, learns
from frontinus.drivers.amphora.haproxy.preview import preview
from frontinus.drivers.amphora.haproxy.render import CAPABILITIES, MAX_MEMORY, render, rendered
from frontinus.drivers.amphora.haproxy.settings import HaproxySettings
from frontinus.drivers.amphora.haproxy.versions import for_version, version_of
from frontinus.drivers.amphora.interface import Rendered
from frontinus.model.capabilities import Capabilities
from frontinus.model.certificates import NO_SECRETS, Secrets
from frontinus.model.errors import Subject
from frontinus.model.previews import Preview
from frontinus.model.tree import Amphora, LoadBalancerTree


class HaproxyDriver(AgentDriver):
    Settings: ClassVar[type[HaproxySettings]] = HaproxySettings
    name: ClassVar[str] = "haproxy"
    version: ClassVar[str] = "0.1.0"
    capabilities: ClassVar[Capabilities] = CAPABILITIES

    def __init__(self, settings: HaproxySettings, *, clock: Clock = utc_now) -> None:
        """Opens the authority, making it on first use. Raises Invalid naming the setting that cannot be."""
        super().__init__(settings, clock=clock)
        self._settings = settings
        self._for_octavia = dataclasses.replace(settings, base_path=settings.base_path or settings.plain_base_path)

    def offers(self) -> Capabilities:
        offered = with_lvs(CAPABILITIES) if self._settings.datagram_balancer == "lvs" else CAPABILITIES
        # Agents of Octavia, for which a base path is set, do not limit memory.
        return (
            replace(offered, flavor_keys=offered.flavor_keys - {"max_memory"}) if self._settings.base_path else offered
        )

    def render(self, tree: LoadBalancerTree, amphora: Amphora, secrets: Secrets = NO_SECRETS) -> Rendered:
        version = version_of(amphora.balancer_version)
        settings = self._for_octavia if amphora.speaks_plain else self._settings
        alone = render(tree, settings, secrets, amphora_id=amphora.id, version=version)
        of_pair = keepalived_file(tree, amphora, self._settings, lvs=self._settings.datagram_balancer == "lvs")
        return alone if of_pair is None else rendered(alone.text, (*alone.files, of_pair))

    def preview(self, before: Rendered | None, after: Rendered | None) -> Preview:
        return preview(before, after)

    def _lacks(self, rendered: Rendered, features: Collection[str]) -> str | None:
        limited = f"\n    setenv {MAX_MEMORY} " in rendered.text
        return "limit HAProxy's memory (max_memory)" if limited and MEMORY not in features else None

    def _introduced(self, live: str, rendered: str) -> str:
        return introduced(live, rendered)

    def _learns(self, live: str) -> bool:
        return learns(live)

    def _closing(self, live: str) -> str:
        return closing(live)

    def _change(self, before: Live, rendered: Rendered, balancer: str) -> Change:
        return for_version(diff(before, rendered), balancer)

    def _subject(self, complaint: str, rendered: Rendered, tree: LoadBalancerTree) -> Subject | None:
        return subject_of(complaint, rendered.text, tree)

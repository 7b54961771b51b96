"""The nginx driver: how it renders. Every change is a reload; what speaks to the amphora is agent/driver.py."""

from __future__ import annotations

from typing import ClassVar

from frontinus.drivers.amphora.agent.authority import Clock, utc_now
from frontinus.drivers.amphora.agent.change import Change
from frontinus.drivers.amphora.agent.driver import AgentDriver
from frontinus.drivers.amphora.agent.files import Live
from frontinus.drivers.amphora.agent.preview import preview_of_nginx
from frontinus.drivers.amphora.interface import Rendered
from frontinus.drivers.amphora.nginx.render import CAPABILITIES, render
from frontinus.drivers.amphora.nginx.settings import NginxDriverSettings
from frontinus.model.capabilities import Capabilities
from frontinus.model.certificates import NO_SECRETS, Secrets
from frontinus.model.errors import Subject
from frontinus.model.previews import Preview
from frontinus.model.tree import Amphora, LoadBalancerTree


class NginxDriver(AgentDriver):
    Settings: ClassVar[type[NginxDriverSettings]] = NginxDriverSettings
    name: ClassVar[str] = "nginx"
    version: ClassVar[str] = "0.1.0"
    capabilities: ClassVar[Capabilities] = CAPABILITIES

    def __init__(self, settings: NginxDriverSettings, *, clock: Clock = utc_now) -> None:
        """Opens the authority, making it on first use. Raises Invalid naming the setting that cannot be."""
        super().__init__(settings, clock=clock)
        self._settings = settings

    def render(self, tree: LoadBalancerTree, amphora: Amphora, secrets: Secrets = NO_SECRETS) -> Rendered:
        return render(tree, self._settings.nginx(), secrets)

    def preview(self, before: Rendered | None, after: Rendered | None) -> Preview:
        return preview_of_nginx(() if before is None else before.files, () if after is None else after.files)

    def _change(self, before: Live, rendered: Rendered, balancer: str) -> Change:
        return Change((), reload=True)

    def _subject(self, complaint: str, rendered: Rendered, tree: LoadBalancerTree) -> Subject | None:
        return None  # nginx names a line; what can be wrong there was refused, by name, when it was rendered

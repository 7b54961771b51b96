"""An amphora driver without amphorae: whatever it is asked to apply has been applied already.

For the start of a driver of your own, and to measure the API and the controller alone. Keeps nothing, sends nothing and
hears nothing: the statuses that heartbeats would bring stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import ClassVar

import msgspec

from frontinus.drivers.amphora.interface import AmphoraDriver, AmphoraInfo, Applied, Refused, Rendered
from frontinus.model.boot import BootFiles
from frontinus.model.capabilities import FEATURES, Capabilities
from frontinus.model.certificates import NO_SECRETS, Secrets, secret_uses
from frontinus.model.enums import (
    HealthMonitorType,
    LbAlgorithm,
    ListenerProtocol,
    PoolProtocol,
    SessionPersistenceType,
    Topology,
)
from frontinus.model.errors import Rejected
from frontinus.model.heartbeat import Heartbeat
from frontinus.model.ids import AmphoraId, PortId
from frontinus.model.previews import Preview, unified
from frontinus.model.tree import Amphora, LoadBalancerTree


class NoopAmphoraDriver(AmphoraDriver):
    """See drivers/amphora/interface.py. Does nothing, successfully."""

    name: ClassVar[str] = "noop"
    version: ClassVar[str] = "0.1.0"
    amphora_versions: ClassVar[str] = ">=0"
    capabilities: ClassVar[Capabilities] = Capabilities(
        topologies=frozenset(Topology),
        listener_protocols=frozenset(ListenerProtocol),
        pool_protocols=frozenset(PoolProtocol),
        lb_algorithms=frozenset(LbAlgorithm),
        health_monitor_types=frozenset(HealthMonitorType),
        session_persistence_types=frozenset(SessionPersistenceType),
        features=frozenset(FEATURES),
    )

    def render(self, tree: LoadBalancerTree, amphora: Amphora, secrets: Secrets = NO_SECRETS) -> Rendered:
        # One line per object and the edit that last touched it: differs after every edit, as a real one would.
        wanted = tree.wanted()
        lines = sorted(f"{child.kind} {child.id} {child.changed_generation}" for child in wanted.children())
        for use in secret_uses(wanted):
            content = secrets.of(use)
            if content is None:
                raise Rejected(use.field, f"{use.reference} was not resolved")
            lines.append(f"{use.object_id} {use.field} {sha256(msgspec.json.encode(content)).hexdigest()}")
        text = "\n".join((" ".join((amphora.role, *wanted.addresses())), *lines))
        return Rendered(text=text, digest=sha256(text.encode()).hexdigest())

    def preview(self, before: Rendered | None, after: Rendered | None) -> Preview:
        # As its apply: whatever it is asked for is so already.
        old, new = ("" if x is None else x.text for x in (before, after))
        return Preview(action="unchanged", diff=unified(old, new, "noop"))

    def boot_files(self, amphora_id: AmphoraId, management_address: str) -> BootFiles:
        return BootFiles(files={})

    async def apply(self, amphora: Amphora, tree: LoadBalancerTree, rendered: Rendered) -> Applied:
        return Applied(digest=rendered.digest, action="unchanged")

    async def info(self, amphora: Amphora, tree: LoadBalancerTree) -> AmphoraInfo:
        return AmphoraInfo(
            agent_version=self.version,
            balancer_version="none",
            extension=None,
            running=True,
            digest=None if amphora.receipt is None else amphora.receipt.digest,
        )

    async def plug(self, amphora: Amphora, tree: LoadBalancerTree) -> Mapping[PortId, str]:
        return {port.id: f"eth{number}" for number, port in enumerate(amphora.ports)}

    async def retire(self, amphora: Amphora, tree: LoadBalancerTree) -> None:
        return

    def decode(self, datagram: bytes, now: datetime) -> Heartbeat:
        raise Refused("no amphora of this driver sends heartbeats")

"""One listener and one pool over some members, and the words to change them: what most traffic tests begin with."""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

from frontinus.model.enums import ListenerProtocol, PoolProtocol
from frontinus.model.tree import HealthMonitor, Listener, LoadBalancerTree, Pool
from frontinus.model.tree import Member as MemberRow

from tests.integration.drivers.world import MEMBERS, VIP, World
from tests.unit.drivers.trees import a_listener, a_load_balancer, a_member, a_pool, a_tree


class Named(Protocol):
    """A member that runs: of TCP or of datagrams."""

    name: str
    port: int


M = TypeVar("M", bound=Named)


class SiteOf(Generic[M]):
    """`protocol` is the listener's and the pool's, unless a call says otherwise."""

    protocol = ListenerProtocol.HTTP

    def __init__(self, world: World, members: list[M], port: int) -> None:
        self.world = world
        self.members = members
        self.port = port

    def rows(self, **fields: dict[str, Any]) -> list[MemberRow]:
        """A row for each member; `fields` are by the member's name."""
        return [
            a_member(30 + index, address=MEMBERS, port=member.port, **fields.get(member.name, {}))
            for index, member in enumerate(self.members)
        ]

    def tree(
        self,
        *,
        rows: list[MemberRow] | None = None,
        monitors: tuple[HealthMonitor, ...] = (),
        listener: dict[str, Any] | None = None,
        pool: dict[str, Any] | None = None,
        load_balancer: dict[str, Any] | None = None,
        more: tuple[Listener, ...] = (),
        pools: tuple[Pool, ...] = (),
    ) -> LoadBalancerTree:
        """`more` and `pools` stand beside the one listener and the one pool."""
        of_pool = {"protocol": PoolProtocol(self.protocol.value), **(pool or {})}
        return a_tree(
            a_load_balancer(VIP, **(load_balancer or {})),
            listeners=[a_listener(port=self.port, **{"protocol": self.protocol, **(listener or {})}), *more],
            pools=[a_pool(**of_pool), *pools],
            members=self.rows() if rows is None else rows,
            monitors=monitors,
        )

    async def shows(self, **fields: Any) -> str:
        """What the amphora did to have it so."""
        return (await self.world.apply(self.tree(**fields))).action

"""A controller's world in one process: a real store, fake drivers, a clock that is moved by hand.

`kill` orders the death of the controller at its n-th call of anything outside, store included; whoever comes next has
another name and waits for the lease to run out, as in life."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

from msgspec.structs import replace

from frontinus.controller.hands import Hands
from frontinus.controller.plan import ROLES_OF_TOPOLOGY
from frontinus.controller.plugging import PEERS_PORT
from frontinus.controller.reconcile import reconcile
from frontinus.controller.settings import ControllerSettings
from frontinus.model.edits import apply, delete_load_balancer, request_failover
from frontinus.model.enums import AmphoraStatus, LbAlgorithm, ListenerProtocol, PoolProtocol, Topology
from frontinus.model.errors import LeaseLost
from frontinus.model.ids import (
    AmphoraId,
    ControllerId,
    ListenerId,
    LoadBalancerId,
    MemberId,
    PoolId,
    ProjectId,
    SubnetId,
    new_id,
)
from frontinus.model.network import VipRequest
from frontinus.model.placement import Placement
from frontinus.model.ports import PortPurpose
from frontinus.model.tree import (
    Amphora,
    Listener,
    LoadBalancer,
    LoadBalancerTree,
    Member,
    Pool,
    TreeChild,
)
from frontinus.store import amphorae, controllers, health, leases, trees
from frontinus.store.engine import Store, Transaction, Wakeups
from frontinus.testing.fake_amphora import FakeAmphoraDriver, FakeVouching
from frontinus.testing.fake_compute import FakeCompute, FakePlace
from frontinus.testing.fake_network import FakeNetwork, FakePortNetwork
from frontinus.testing.fake_secret import FakeSecrets
from frontinus.testing.faults import Faults, Killed

_T = TypeVar("_T")

SETTINGS = ControllerSettings(boot_timeout=timedelta(seconds=0.3), hang_deadline=timedelta(seconds=10))
PROJECT = ProjectId("project")


class MortalStore:
    """The store, where each call of the controller is one of the moments at which it may die."""

    def __init__(self, store: Store, faults: Faults) -> None:
        self._store = store
        self._faults = faults

    async def transact(self, work: Callable[[Transaction], _T]) -> _T:
        async with self._faults.around("transact"):
            return await self._store.transact(work)

    async def read(self, work: Callable[[Transaction], _T]) -> _T:
        async with self._faults.around("read"):
            return await self._store.read(work)

    def wakeups(self) -> Wakeups:
        return self._store.wakeups()


class World:
    """Everything that outlives a controller."""

    def __init__(self, directory: Path, *, has_ports: bool = False, url: str = "") -> None:
        """`url` is of a database that is empty and migrated; without one it is a file in the directory."""
        self.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        self.store = Store.open(url or f"sqlite:///{directory / 'frontinus.sqlite'}")
        if not url:
            self.store.upgrade()
        self.faults = Faults()
        self.places: dict[AmphoraId, FakePlace] = {}
        self.taken_ports: set[int] = set()
        self.unspeakable: set[str] = set()
        self.outgrown: set[AmphoraId] = set()
        self.vouching = FakeVouching(lambda: self.now)
        self.network = FakePortNetwork(faults=self.faults) if has_ports else FakeNetwork(faults=self.faults)
        self.secrets = FakeSecrets(faults=self.faults)
        self.owner = ControllerId(new_id())
        self.hands = self._hands()

    def _hands(self) -> Hands:
        return Hands(
            store=cast(Any, MortalStore(self.store, self.faults)),
            amphora_driver=FakeAmphoraDriver(
                self.places, self.taken_ports, self.faults, self.unspeakable, self.vouching, self.outgrown
            ),
            compute=FakeCompute(self.places, self.faults),
            network=self.network,
            secret=self.secrets,
            settings=SETTINGS,
            now=lambda: self.now,
        )

    # ---------------------------------------------------------------- the controller

    async def register(self) -> None:
        driver = self.hands.amphora_driver
        record = controllers.Controller(
            id=self.owner,
            driver=driver.name,
            driver_version=driver.version,
            host="here",
            pid=1,
            provider="amphora",
            capabilities=driver.capabilities,
            started_at=self.now,
            seen_at=self.now,
        )
        await self.store.transact(lambda tx: controllers.register(tx, record))

    async def turn(self) -> bool:
        """Claim what is due and converge it; whether there was anything."""
        now, owner = self.now, self.owner
        claimed = await self.store.transact(
            lambda tx: leases.claim_due(tx, owner, self.hands.cohort, now, SETTINGS.lease_duration, 10)
        )
        for lease in claimed:
            try:
                if await reconcile(lease, self.hands):
                    continue
            except LeaseLost:
                continue
            held = lease
            await self.store.transact(lambda tx, held=held: leases.release(tx, held))  # type: ignore[misc]
        return bool(claimed)

    async def converge(self, rounds: int = 60) -> None:
        """Turns until nothing is due, moving the clock to whatever is next. The controller may die on the way."""
        for _ in range(rounds):
            try:
                await self.turn()
            except Killed:
                self.restart()
            next_due = await self.store.read(leases.next_due)
            if next_due is None:
                return
            self.now = max(self.now + timedelta(milliseconds=1), next_due)
        raise AssertionError(f"it does not settle: {[x.load_balancer for x in await self.trees()]}")

    def restart(self) -> None:
        """Another controller process; the world stays."""
        self.owner = ControllerId(new_id())
        self.hands = self._hands()

    # ---------------------------------------------------------------- the tenant

    async def create(
        self,
        *ports: int,
        topology: Topology = Topology.SINGLE,
        request: VipRequest | None = None,
        known_as: LoadBalancerId | None = None,
        placement: Placement | None = None,
    ) -> LoadBalancerId:
        """What the API does for a whole-tree create: an address first, then one transaction."""
        load_balancer_id = known_as or LoadBalancerId(new_id())
        asked = request or VipRequest(subnet_id=self.network.subnets[0].id)
        allocated = await self.network.allocate_vip(load_balancer_id, PROJECT, asked)
        pool = Pool(
            id=PoolId(new_id()),
            load_balancer_id=load_balancer_id,
            project_id=PROJECT,
            protocol=PoolProtocol.HTTP,
            lb_algorithm=LbAlgorithm.ROUND_ROBIN,
            changed_generation=1,
            created_at=self.now,
        )
        tree = LoadBalancerTree(
            load_balancer=LoadBalancer(
                id=load_balancer_id,
                project_id=PROJECT,
                vip=allocated.vip,
                vip_port_owned=allocated.port_owned,
                additional_vips=allocated.additional,
                topology=topology,
                placement=placement,
                created_at=self.now,
            ),
            pools=(pool,),
            listeners=tuple(self.listener(load_balancer_id, port, pool.id) for port in ports),
            members=(self.member(load_balancer_id, pool.id, 8001),),
        )
        await self.store.transact(lambda tx: trees.create_tree(tx, tree, self.hands.cohort))
        return load_balancer_id

    def listener(self, load_balancer_id: LoadBalancerId, port: int, pool_id: PoolId) -> Listener:
        return Listener(
            id=ListenerId(new_id()),
            load_balancer_id=load_balancer_id,
            project_id=PROJECT,
            protocol=ListenerProtocol.HTTP,
            protocol_port=port,
            default_pool_id=pool_id,
            changed_generation=1,
            created_at=self.now,
        )

    def member(
        self, load_balancer_id: LoadBalancerId, pool_id: PoolId, port: int, subnet_id: SubnetId | None = None
    ) -> Member:
        return Member(
            id=MemberId(new_id()),
            load_balancer_id=load_balancer_id,
            project_id=PROJECT,
            pool_id=pool_id,
            address="127.0.0.1",
            protocol_port=port,
            subnet_id=subnet_id,
            changed_generation=1,
            created_at=self.now,
        )

    async def edit(
        self, load_balancer_id: LoadBalancerId, edit: Callable[[LoadBalancerTree], LoadBalancerTree]
    ) -> None:
        def work(tx: Transaction) -> None:
            before = trees.read_tree(tx, load_balancer_id, for_update=True)
            assert before is not None
            trees.write_tree(tx, before, edit(before))

        await self.store.transact(work)

    async def add(self, load_balancer_id: LoadBalancerId, *children: TreeChild) -> None:
        await self.edit(load_balancer_id, lambda tree: apply(tree, self.now, create=children))

    async def delete(self, load_balancer_id: LoadBalancerId) -> None:
        await self.edit(load_balancer_id, lambda tree: delete_load_balancer(tree, self.now))

    def ask_for_failover(self, tx: Transaction, load_balancer_id: LoadBalancerId) -> None:
        """What the API does for it."""
        tree = trees.read_tree(tx, load_balancer_id, for_update=True)
        assert tree is not None
        trees.write_tree(tx, tree, request_failover(tree, self.now))
        amphorae.request_replacement_of_all(tx, load_balancer_id, self.now)

    async def suspect(self, load_balancer_id: LoadBalancerId) -> None:
        tree = await self.tree(load_balancer_id)
        assert tree is not None
        ids = [x.id for x in tree.amphorae]
        await self.store.transact(lambda tx: health.suspect(tx, ids, self.now))

    # ---------------------------------------------------------------- what is so

    async def tree(self, load_balancer_id: LoadBalancerId) -> LoadBalancerTree | None:
        return await self.store.read(lambda tx: trees.read_tree(tx, load_balancer_id))

    async def tree_of(self, load_balancer_id: LoadBalancerId) -> LoadBalancerTree:
        """Of one that must be there."""
        found = await self.tree(load_balancer_id)
        assert found is not None
        return found

    async def trees(self) -> list[LoadBalancerTree]:
        return [x for x in [await self.tree(y) for y in set(self.network.vips.values())] if x is not None]

    async def assert_served(self, load_balancer_id: LoadBalancerId) -> LoadBalancerTree:
        """Settled, each role filled, and its amphora runs exactly what is wanted; nothing else exists."""
        tree = await self.tree(load_balancer_id)
        assert tree is not None
        load_balancer = tree.load_balancer
        assert load_balancer.provisioning_status == "ACTIVE", load_balancer
        assert load_balancer.applied_generation == load_balancer.generation
        assert load_balancer.fault is None
        assert {x.provisioning_status for x in tree.children()} == {"ACTIVE"}
        assert sorted(x.role for x in tree.amphorae) == sorted(ROLES_OF_TOPOLOGY[load_balancer.topology])
        assert set(self.places) == {x.id for x in tree.amphorae}
        for amphora in tree.amphorae:
            assert amphora.status is AmphoraStatus.ALLOCATED
            place = self.places[amphora.id]
            assert place.agent_running
            # The generation and so on are reports; what runs is what the driver renders for the tree as it is.
            assert place.runs == self.hands.amphora_driver.render(tree.wanted(), amphora)
        assert set(self.network.vips.values()) == {load_balancer_id}
        if isinstance(self.network, FakePortNetwork):
            ports = [port for x in tree.amphorae for port in x.ports]
            assert {x.id: replace(x, interface=None) for x in ports} == self.network.ports
            assert self.network.groups == set(self.network.ports)
            for amphora in tree.amphorae:
                self.assert_plugged(amphora, tree)
        return tree

    def assert_plugged(self, amphora: Amphora, tree: LoadBalancerTree) -> None:
        """It has the ports that its tree needs, which are attached, configured and on record."""
        load_balancer = tree.load_balancer
        of_vips = {load_balancer.vip.subnet_id, *(x.subnet_id for x in load_balancer.additional_vips)}
        subnets = {*of_vips, *(x.subnet_id for x in tree.members if x.subnet_id is not None)}
        place, ports = self.places[amphora.id], {x.id: x for x in amphora.ports}
        assert set(place.attached) == set(ports)
        plugged = [x for x in ports.values() if x.purpose is not PortPurpose.MANAGEMENT]
        assert {x.mac: x.addresses for x in place.configured.values()} == {x.mac: x.addresses for x in plugged}
        assert {subnet for port in plugged for subnet in port.subnet_ids} == subnets
        (vip_port,) = [x for x in plugged if x.purpose is PortPurpose.VIP]
        of_peer = {None, PEERS_PORT} if len(tree.amphorae) > 1 else set()
        assert {x.port for x in vip_port.allowed} == {x.protocol_port for x in tree.listeners} | of_peer
        assert (amphora.vrrp_address, amphora.vrrp_port_id) == (vip_port.addresses[0].address, vip_port.id)
        assert amphora.vrrp_interface is not None
        assert amphora.management_address == place.address

    async def assert_nothing(self, load_balancer_id: LoadBalancerId) -> None:
        assert await self.tree(load_balancer_id) is None
        assert self.places == {}
        assert self.network.vips == {}
        assert not isinstance(self.network, FakePortNetwork) or self.network.ports == {}

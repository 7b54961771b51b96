"""Trees to store, and a look behind the store's back."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self, TypeVar

from msgspec.structs import replace

from frontinus.model.capabilities import Capabilities
from frontinus.model.cohorts import CohortName
from frontinus.model.enums import (
    AmphoraStatus,
    FaultPhase,
    HealthMonitorType,
    Kind,
    L7PolicyAction,
    L7RuleCompareType,
    L7RuleType,
    LbAlgorithm,
    ListenerProtocol,
    PoolProtocol,
    ProvisioningStatus,
)
from frontinus.model.ids import (
    AmphoraId,
    ControllerId,
    HealthMonitorId,
    L7PolicyId,
    L7RuleId,
    ListenerId,
    LoadBalancerId,
    MemberId,
    NetworkId,
    PoolId,
    PortId,
    ProjectId,
    SubnetId,
    new_id,
)
from frontinus.model.tree import (
    Amphora,
    Fault,
    HealthMonitor,
    L7Policy,
    L7Rule,
    Listener,
    LoadBalancer,
    LoadBalancerTree,
    Member,
    Pool,
    TreeObject,
    Vip,
)
from frontinus.store import controllers, leases, trees
from frontinus.store.engine import Store, Transaction
from frontinus.store.engines.interface import Session
from frontinus.store.leases import Lease
from frontinus.store.statement import Row, Value

NOW = datetime(2026, 3, 4, 5, 6, 7, 891011, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
LEASE = timedelta(seconds=30)
DRIVER = "haproxy"
COHORT = CohortName(DRIVER, "1.0")
OURS = ControllerId("00000000-0000-4000-8000-00000000000a")
THEIRS = ControllerId("00000000-0000-4000-8000-00000000000b")

T = TypeVar("T")
Object = TypeVar("Object", Listener, Pool, Member, HealthMonitor, L7Policy, L7Rule)


def a_tree(
    *, listeners: int = 1, pools: int = 1, members: int = 2, project: str = "p", at: datetime = NOW, name: str = "web"
) -> LoadBalancerTree:
    """A load balancer whose first listener has a policy with a rule to the last pool, and whose first pool a monitor."""
    load_balancer_id, project_id = LoadBalancerId(new_id()), ProjectId(project)
    pool_ids = [PoolId(new_id()) for _ in range(pools)]
    listener_ids = [ListenerId(new_id()) for _ in range(listeners)]
    policy_id = L7PolicyId(new_id())

    def child(number: int) -> dict[str, object]:
        moment = at + timedelta(microseconds=number)
        return {"load_balancer_id": load_balancer_id, "project_id": project_id, "created_at": moment}

    return LoadBalancerTree(
        load_balancer=LoadBalancer(
            id=load_balancer_id,
            project_id=project_id,
            name=name,
            vip=Vip(
                address="192.0.2.1",
                subnet_id=SubnetId(new_id()),
                network_id=NetworkId(new_id()),
                port_id=PortId(new_id()),
            ),
            created_at=at,
        ),
        pools=tuple(
            _made(Pool, child(n), id=x, protocol=PoolProtocol.HTTP, lb_algorithm=LbAlgorithm.ROUND_ROBIN)
            for n, x in enumerate(pool_ids)
        ),
        listeners=tuple(
            _made(
                Listener,
                child(n),
                id=x,
                protocol=ListenerProtocol.HTTP,
                protocol_port=8000 + n,
                default_pool_id=pool_ids[0] if pool_ids else None,
            )
            for n, x in enumerate(listener_ids)
        ),
        members=tuple(
            _made(
                Member,
                child(n),
                id=MemberId(new_id()),
                pool_id=pool_ids[n % pools],
                address=f"198.51.100.{n % 250}",
                protocol_port=80 + n // 250,
            )
            for n in range(members)
        ),
        health_monitors=tuple(
            _made(
                HealthMonitor,
                child(0),
                id=HealthMonitorId(new_id()),
                pool_id=x,
                type=HealthMonitorType.TCP,
                delay=5,
                timeout=3,
                max_retries=2,
            )
            for x in pool_ids[:1]
        ),
        l7_policies=tuple(
            _made(
                L7Policy,
                child(0),
                id=policy_id,
                listener_id=x,
                action=L7PolicyAction.REDIRECT_TO_POOL,
                position=1,
                redirect_pool_id=pool_ids[-1],
            )
            for x in listener_ids[:1]
        ),
        l7_rules=tuple(
            _made(
                L7Rule,
                child(0),
                id=L7RuleId(new_id()),
                l7_policy_id=policy_id,
                type=L7RuleType.PATH,
                compare_type=L7RuleCompareType.STARTS_WITH,
                value="/x",
            )
            for _ in listener_ids[:1]
        ),
    )


def _made(kind: type[Object], child: Mapping[str, object], **own: object) -> Object:
    return kind(**{**child, **own})  # type: ignore[arg-type]  # the struct itself refuses what it does not know


def an_amphora(tree: LoadBalancerTree, status: AmphoraStatus = AmphoraStatus.PENDING_CREATE) -> Amphora:
    return Amphora(
        id=AmphoraId(new_id()),
        load_balancer_id=tree.id,
        project_id=tree.load_balancer.project_id,
        status=status,
        created_at=NOW,
    )


def a_fault(
    *, retry_at: datetime | None = None, permanent: bool = False, about: TreeObject | None = None, code: str = "c"
) -> Fault:
    return Fault(
        code=code,
        phase=FaultPhase.APPLY,
        message="it did not work",
        since=NOW,
        permanent=permanent,
        retry_at=retry_at,
        object_kind=None if about is None else about.kind,
        object_id=None if about is None else about.id,
    )


async def create(store: Store, *many: LoadBalancerTree) -> None:
    def work(tx: Transaction) -> None:
        for tree in many:
            trees.create_tree(tx, tree, COHORT)

    await store.transact(work)


async def stored(store: Store, tree: LoadBalancerTree) -> LoadBalancerTree:
    found = await store.read(lambda tx: trees.read_tree(tx, tree.id))
    assert found is not None
    return found


async def register(store: Store, controller_id: ControllerId = OURS, *, provider: str = "amphora") -> None:
    arrived = controllers.Controller(
        id=controller_id,
        driver=DRIVER,
        driver_version="1.0",
        host="here",
        pid=1,
        capabilities=Capabilities(),
        provider=provider,
        started_at=NOW,
        seen_at=NOW,
    )
    await store.transact(lambda tx: controllers.register(tx, arrived))


async def claim(store: Store, now: datetime = LATER, *, owner: ControllerId = OURS, limit: int = 10) -> list[Lease]:
    await register(store, owner)
    return await store.transact(lambda tx: leases.claim_due(tx, owner, COHORT, now, LEASE, limit))


async def claim_one(store: Store, now: datetime = LATER, *, owner: ControllerId = OURS) -> Lease:
    (lease,) = await claim(store, now, owner=owner)
    return lease


async def edit(
    store: Store,
    tree: LoadBalancerTree,
    now: datetime,
    *,
    members: tuple[Member, ...] = (),
    delete_requested: bool = False,
) -> LoadBalancerTree:
    """A user's edit: the next generation, in which these members are changed or new."""

    def work(tx: Transaction) -> LoadBalancerTree:
        before = trees.read_tree(tx, tree.id, for_update=True)
        assert before is not None
        generation = before.load_balancer.generation + 1
        status = ProvisioningStatus.PENDING_DELETE if delete_requested else ProvisioningStatus.PENDING_UPDATE
        changed = {
            x.id: replace(
                x, changed_generation=generation, provisioning_status=status, delete_requested=delete_requested
            )
            for x in members
        }
        known = {x.id for x in before.members}
        after = replace(
            before,
            load_balancer=replace(
                before.load_balancer,
                generation=generation,
                provisioning_status=ProvisioningStatus.PENDING_UPDATE,
                updated_at=now,
            ),
            members=(
                *(changed.get(x.id, x) for x in before.members),
                *(x for x in changed.values() if x.id not in known),
            ),
        )
        trees.write_tree(tx, before, after)
        return after

    return await store.transact(work)


@contextmanager
def behind(path: Path) -> Iterator[sqlite3.Connection]:
    """The database as another program sees it; what is done is committed at the end."""
    connection = sqlite3.connect(path, timeout=10)
    try:
        with connection:
            yield connection
    finally:
        connection.close()


class Executed(str):
    """The text of a statement, with what it was executed with."""

    __slots__ = ("values",)
    values: tuple[Value, ...]

    def __new__(cls, text: str, values: tuple[Value, ...]) -> Self:
        made = super().__new__(cls, text)
        made.values = values
        return made


class _Counted:
    """A session that notes what is executed over it."""

    def __init__(self, session: Session, seen: list[Executed]) -> None:
        self._session = session
        self._seen = seen

    def query(self, text: str, values: tuple[Value, ...]) -> Sequence[Row]:
        self._seen.append(Executed(text, values))
        return self._session.query(text, values)

    def execute(self, text: str, values: tuple[Value, ...]) -> int:
        self._seen.append(Executed(text, values))
        return self._session.execute(text, values)

    def execute_many(self, text: str, sets: list[tuple[Value, ...]]) -> None:
        self._seen.extend(Executed(text, values) for values in sets)
        self._session.execute_many(text, sets)


@contextmanager
def statements(store: Store) -> Iterator[list[Executed]]:
    """The SQL that the store executes meanwhile, BEGIN and COMMIT aside; one entry per execution."""
    seen: list[Executed] = []
    database = store._database
    run = database.run

    async def noted(body: Callable[[Session], T], *, writable: bool) -> T:
        return await run(lambda session: body(_Counted(session, seen)), writable=writable)

    database.run = noted  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        del database.run


async def start_python(program: str, *arguments: str) -> asyncio.subprocess.Process:
    """Another Python process of this interpreter that can import what the tests can; its output is to be read."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def status_of(tree: LoadBalancerTree, kind: Kind) -> set[ProvisioningStatus]:
    return {x.provisioning_status for x in tree.children() if x.kind is kind}

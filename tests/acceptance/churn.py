"""Tenants who create, change and delete load balancers over the API without end, and note what was promised to them.

What a tenant may see while processes die and the database restarts: a connection that breaks, which he tries again; 503
with Retry-After, which he obeys; and what his own doing causes. Anything else is a complaint."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PATIENCE_S = 60.0
"""For so long a request is tried again."""


@dataclass
class Tenant:
    """One client of several APIs; tries again as a well-made client does."""

    ports: Sequence[int]
    random: random.Random
    complaints: list[str]
    seen: Counter[str]
    subnet_id: str = ""
    longest_s: float = 0.0

    def ask(self, method: str, path: str, body: object = None, *, fine: Sequence[int] = ()) -> tuple[int, Any]:
        """The answer, if need be after several tries. A create is sent with a key, so that it is carried out once."""
        headers = {"Idempotency-Key": str(uuid.uuid4())} if method == "POST" else {}
        began = time.monotonic()
        tries: Counter[str] = Counter()
        while True:
            asked = time.monotonic()
            try:
                status, told, content = _exchange(self.random.choice(self.ports), method, path, body, headers)
            except (OSError, http.client.HTTPException) as error:
                self.seen[f"connection: {type(error).__name__}"] += 1
                tries[f"{type(error).__name__} after {time.monotonic() - asked:.0f} s"] += 1
                pause: float | None = 0.1
            else:
                took = time.monotonic() - asked
                self.longest_s = max(self.longest_s, took)
                self.seen[str(status)] += 1
                tries[f"{status} after {took:.0f} s: {content}"] += 1
                if status < 300 or status in fine:
                    return status, content
                pause = self._pause(method, path, status, told, content)
                if pause is None:
                    return status, content
            if time.monotonic() - began > PATIENCE_S:
                self.complaints.append(f"{method} {path}: nothing came of it in {PATIENCE_S:.0f} s: {dict(tries)}")
                return 0, None
            time.sleep(pause or 0.0)

    def _pause(self, method: str, path: str, status: int, told: Mapping[str, str], content: object) -> float | None:
        """How long to wait before another try; None where there shall be none."""
        if status == 503 and "retry-after" in told:
            return min(float(told["retry-after"]), 2.0)
        if status == 409 and "retry-after" in told:  # the same request is being carried out
            return 0.2
        self.complaints.append(f"{method} {path}: {status} {content}")
        return None


@dataclass
class Churn:
    """`count` load balancers at most, shared out to `tenants` threads. `wanted` is what exists for all that is known."""

    ports: Sequence[int]
    count: int
    member_port: int
    tenants: int = 4
    pause: float = 0.05
    seed: int = 0
    complaints: list[str] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    wanted: dict[str, int] = field(default_factory=dict)
    """Load balancer to the port of its listener."""
    longest_s: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        for number in range(self.tenants):
            thread = threading.Thread(target=self._live, args=(number,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Every tenant has finished what he was about."""
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S * 2)
            if thread.is_alive():
                self.complaints.append("a tenant never came back")

    def _live(self, number: int) -> None:
        tenant = Tenant(self.ports, random.Random(self.seed * 1000 + number), self.complaints, self.seen)
        tenant.subnet_id = str(tenant.ask("GET", "/v2.0/subnets")[1]["subnets"][0]["id"])
        mine: list[Owned | None] = [None] * (self.count // self.tenants)
        while not self._stop.is_set():
            slot = tenant.random.randrange(len(mine))
            try:
                mine[slot] = self._do_something(tenant, mine[slot])
            except Exception as error:  # noqa: BLE001 - a tenant goes on, and says what befell him
                self.complaints.append(f"{error!r}")
            self.longest_s = max(self.longest_s, tenant.longest_s)
            time.sleep(self.pause)

    def _do_something(self, tenant: Tenant, owned: Owned | None) -> Owned | None:
        if owned is None:
            owned = _create(tenant, self.member_port)
            if owned is not None:
                self.wanted[owned.id] = owned.port
            return owned
        deed: Callable[[Tenant, Owned], bool] = tenant.random.choices(
            (_weigh, _add_member, _remove_member, _rename, _add_listener, _delete), (6, 4, 3, 3, 2, 3)
        )[0]
        is_left = deed(tenant, owned)
        if not is_left:
            self.wanted.pop(owned.id, None)
        return owned if is_left else None


@dataclass
class Owned:
    id: str
    port: int
    pool: str
    members: list[str]
    listeners: int = 1


def _create(tenant: Tenant, member_port: int) -> Owned | None:
    port = tenant.random.randrange(10_000, 20_000)
    members = [{"address": "127.0.0.1", "protocol_port": member_port, "weight": 1}]
    pool = {"name": "web", "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN", "members": members}
    listener = {"protocol": "HTTP", "protocol_port": port, "default_pool": pool}
    asked = {"name": "churn", "vip_subnet_id": tenant.subnet_id, "listeners": [listener]}
    status, answer = tenant.ask("POST", "/v2/lbaas/loadbalancers", {"loadbalancer": asked})
    if status != 201:
        return None
    made = answer["loadbalancer"]
    (pool_made,) = made["pools"]
    return Owned(made["id"], port, pool_made["id"], [x["id"] for x in pool_made["members"]])


def _weigh(tenant: Tenant, owned: Owned) -> bool:
    member = tenant.random.choice(owned.members)
    body = {"member": {"weight": tenant.random.randrange(1, 200)}}
    tenant.ask("PUT", f"/v2/lbaas/pools/{owned.pool}/members/{member}", body)
    return True


def _add_member(tenant: Tenant, owned: Owned) -> bool:
    """One with weight 0, so that what is asked of the VIP is answered by the first."""
    address = f"127.{tenant.random.randrange(1, 60)}.{tenant.random.randrange(250)}.{tenant.random.randrange(1, 250)}"
    body = {"member": {"address": address, "protocol_port": 81, "weight": 0}}
    status, answer = tenant.ask("POST", f"/v2/lbaas/pools/{owned.pool}/members", body)
    if status == 201:
        owned.members.append(answer["member"]["id"])
    return True


def _remove_member(tenant: Tenant, owned: Owned) -> bool:
    if len(owned.members) > 1:
        member = owned.members.pop()
        # Asked for again after a connection broke, it may be gone already.
        tenant.ask("DELETE", f"/v2/lbaas/pools/{owned.pool}/members/{member}", fine=(404, 409))
    return True


def _rename(tenant: Tenant, owned: Owned) -> bool:
    body = {"loadbalancer": {"name": f"churn {tenant.random.randrange(1000)}"}}
    tenant.ask("PUT", f"/v2/lbaas/loadbalancers/{owned.id}", body)
    return True


def _add_listener(tenant: Tenant, owned: Owned) -> bool:
    if owned.listeners < 4:
        port = 20_000 + owned.listeners
        body = {
            "listener": {
                "protocol": "HTTP",
                "protocol_port": port,
                "loadbalancer_id": owned.id,
                "default_pool_id": owned.pool,
            }
        }
        if tenant.ask("POST", "/v2/lbaas/listeners", body)[0] == 201:
            owned.listeners += 1
    return True


def _delete(tenant: Tenant, owned: Owned) -> bool:
    tenant.ask("DELETE", f"/v2/lbaas/loadbalancers/{owned.id}?cascade=true", fine=(404, 409))
    return False


def _exchange(
    port: int, method: str, path: str, body: object, headers: Mapping[str, str]
) -> tuple[int, dict[str, str], Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=40)
    try:
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"Content-Type": "application/json", **headers})
        response = connection.getresponse()
        content = response.read()
        told = {key.lower(): value for key, value in response.getheaders()}
        return response.status, told, json.loads(content) if content else None
    finally:
        connection.close()

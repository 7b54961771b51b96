"""Every operation that writes, something that it can be asked of, and what to ask so that it succeeds."""

from __future__ import annotations

from frontinus.api.operations import resource_operations
from frontinus.api.routing import WRITES
from frontinus.model.enums import AmphoraStatus
from frontinus.model.ids import AmphoraId, LoadBalancerId
from frontinus.model.tree import Amphora, Receipt
from frontinus.store import rows, trees

from tests.integration.api.world import SUBNET_ID, World

AMPHORA = AmphoraId("a0000000-0000-4000-8000-00000000000a")
MEMBER = {"address": "192.0.2.1", "protocol_port": 80}
WRITING = [x for x in resource_operations() if x.method in WRITES]


async def whole(world: World) -> dict[str, str]:
    """One of everything, carried by one amphora that runs."""
    ids = {"load_balancer": await world.load_balancer()}
    ids["pool"] = await world.pool(ids["load_balancer"])
    ids["listener"] = await world.listener(ids["load_balancer"], default_pool_id=ids["pool"])
    ids["member"] = await world.member(ids["pool"])
    ids["health_monitor"] = await world.health_monitor(ids["pool"])
    ids["l7_policy"] = (await world.make("l7policy", listener_id=ids["listener"], action="REJECT"))["id"]
    rule = {"type": "PATH", "compare_type": "EQUAL_TO", "value": "/"}
    ids["l7_rule"] = (await world.make("rule", l7policy=ids["l7_policy"], **rule))["id"]
    ids |= {"amphora": AMPHORA, "quota": "some-project", **await world.offers()}
    assert (await world.call("PUT", "quotas/some-project", {"quota": {"pool": 3}})).status == 202
    receipt = Receipt(generation=9, digest="d", driver_version="1", applied_at=world.clock())
    amphora = Amphora(
        id=AMPHORA,
        load_balancer_id=LoadBalancerId(ids["load_balancer"]),
        project_id=(await world.tree(ids["load_balancer"])).load_balancer.project_id,
        status=AmphoraStatus.ALLOCATED,
        receipt=receipt,
        created_at=world.clock(),
    )
    insert = trees.inserts(rows.AMPHORA, rows.AMPHORA.columns)
    await world.store.transact(lambda tx: tx.insert(insert, rows.AMPHORA.columns, [rows.AMPHORA.encode(amphora)]))
    await world.settle(ids["load_balancer"])
    return ids


def bodies(ids: dict[str, str]) -> dict[str, object]:
    """What each operation is asked, so that it succeeds."""
    below = {"loadbalancer_id": ids["load_balancer"], "protocol": "HTTP"}
    rule = {"type": "PATH", "compare_type": "EQUAL_TO", "value": "/x"}
    return {
        "loadbalancer.create": {"loadbalancer": {"vip_subnet_id": SUBNET_ID}},
        "loadbalancer.update": {"loadbalancer": {"name": "new"}},
        "listener.create": {"listener": {**below, "protocol_port": 81}},
        "listener.update": {"listener": {"connection_limit": 7}},
        "pool.create": {"pool": {**below, "lb_algorithm": "ROUND_ROBIN"}},
        "pool.update": {"pool": {"lb_algorithm": "SOURCE_IP"}},
        "member.create": {"member": {**MEMBER, "address": "192.0.2.2"}},
        "member.update": {"member": {"weight": 7}},
        "member.batch": {"members": [{**MEMBER, "weight": 3}, {**MEMBER, "address": "192.0.2.3"}]},
        "healthmonitor.update": {"healthmonitor": {"delay": 30}},
        "l7policy.create": {"l7policy": {"listener_id": ids["listener"], "action": "REJECT"}},
        "l7policy.update": {"l7policy": {"name": "x"}},
        "rule.create": {"rule": rule},
        "rule.update": {"rule": rule},
        "flavorprofile.create": {"flavorprofile": {"name": "n", "provider_name": "amphora", "flavor_data": "{}"}},
        "flavor.create": {"flavor": {"name": "n", "flavor_profile_id": ids["flavor_profile"]}},
        "availability_zone_profile.create": {
            "availability_zone_profile": {"name": "n", "provider_name": "amphora", "availability_zone_data": "{}"}
        },
        "availability_zone.create": {
            "availability_zone": {"name": "n", "availability_zone_profile_id": ids["availability_zone_profile"]}
        },
        "flavorprofile.update": {"flavorprofile": {"name": "new"}},
        "flavor.update": {"flavor": {"enabled": False}},
        "availability_zone_profile.update": {"availability_zone_profile": {"name": "new"}},
        "availability_zone.update": {"availability_zone": {"enabled": False}},
        "quota.update": {"quota": {"pool": 7}},
        "healthmonitor.create": {
            "healthmonitor": {"pool_id": ids["pool"], "type": "HTTP", "delay": 3, "timeout": 2, "max_retries": 3}
        },
    }

"""A refusal of what a driver cannot do names kind and attribute, and which object of the tree is meant."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from frontinus.api.errors import answer_error
from frontinus.api.honour import require_honoured
from frontinus.drivers.amphora.noop import NoopAmphoraDriver
from frontinus.model.capabilities import Capabilities
from frontinus.model.enums import HealthMonitorType, ListenerProtocol, PoolProtocol
from frontinus.model.errors import Unsupported

from tests.unit.drivers.trees import a_listener, a_load_balancer, a_member, a_monitor, a_policy, a_pool, a_rule, a_tree

EVERYTHING = NoopAmphoraDriver.capabilities
OFFERED = replace(
    EVERYTHING,
    listener_protocols=EVERYTHING.listener_protocols - {ListenerProtocol.SCTP},
    pool_protocols=EVERYTHING.pool_protocols - {PoolProtocol.SCTP},
    health_monitor_types=EVERYTHING.health_monitor_types - {HealthMonitorType.SCTP},
    features=EVERYTHING.features - {"backup", "l7_policy.REJECT", "l7_rule.HEADER", "vip_qos_policy_id"},
)


@pytest.mark.parametrize(
    "fields, said",
    [
        pytest.param(
            {"listeners": [a_listener(), a_listener(11, ListenerProtocol.SCTP, 82, name="votes")]},
            "listener.protocol: this provider does not offer SCTP listeners (the listener 'votes' on port 82)",
            id="listener",
        ),
        pytest.param(
            {"pools": [a_pool(), a_pool(21, protocol=PoolProtocol.SCTP)]},
            "pool.protocol: this provider does not offer SCTP pools (the pool of protocol SCTP)",
            id="pool",
        ),
        pytest.param(
            {"members": [a_member(), a_member(31, address="192.0.2.7", port=81, backup=True)]},
            "member.backup: this provider does not offer backup members (the member at 192.0.2.7 port 81)",
            id="member",
        ),
        pytest.param(
            {"pools": [a_pool(name="web")], "monitors": [a_monitor(type=HealthMonitorType.SCTP)]},
            "healthmonitor.type: this provider does not offer SCTP health monitors (the health monitor of the pool 'web' of protocol HTTP)",
            id="health monitor",
        ),
        pytest.param(
            {"policies": [a_policy(name="no")]},
            "l7policy.action: this provider does not offer L7 policies that REJECT (the L7 policy 'no' at position 50)",
            id="L7 policy",
        ),
        pytest.param(
            {"load_balancer": a_load_balancer(vip_qos_policy_id="q")},
            "loadbalancer.vip_qos_policy_id: this provider does not offer a QoS policy on the VIP",
            id="load balancer",
        ),
    ],
)
def test_a_refusal_says_which_object_it_means(fields: dict[str, Any], said: str) -> None:
    parts: dict[str, Any] = {"listeners": [a_listener()], "pools": [a_pool()], "members": [a_member()]}
    load_balancer = fields.pop("load_balancer", None)
    tree = a_tree(*([load_balancer] if load_balancer else []), **{**parts, **fields})
    with pytest.raises(Unsupported) as raised:
        require_honoured(tree, OFFERED)
    answer = answer_error(raised.value)
    assert (answer.status_code, said in bytes(answer.body).decode()) == (501, True), answer.body


def test_what_is_offered_passes() -> None:
    require_honoured(a_tree(listeners=[a_listener()], policies=[a_policy()], rules=[a_rule()]), EVERYTHING)
    with pytest.raises(Unsupported, match=r"listener\.protocol"):
        require_honoured(a_tree(listeners=[a_listener()]), Capabilities())

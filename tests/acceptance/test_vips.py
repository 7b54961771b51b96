"""A load balancer with an IPv4 and an IPv6 address: real requests over both, and both given back when it goes."""

from __future__ import annotations

import pytest

from tests.acceptance.support import Api, Backend, free_port, serving, spread

SUBNET_V6 = "10c0bac0-0000-4000-8000-000000000002"


def test_every_listener_answers_on_every_vip(api: Api, backends: list[Backend]) -> None:
    ports = [free_port(), free_port()]
    pool = {
        "name": "web",
        "protocol": "HTTP",
        "lb_algorithm": "ROUND_ROBIN",
        "members": [{"address": "127.0.0.1", "protocol_port": x.port} for x in backends],
    }
    listeners = [
        {"protocol": protocol, "protocol_port": port, "default_pool": {"name": "web"}}
        for protocol, port in zip(("HTTP", "TCP"), ports, strict=True)
    ]
    made = api.create(
        "loadbalancers",
        "loadbalancer",
        vip_subnet_id=api.subnet_id(),
        additional_vips=[{"subnet_id": SUBNET_V6}],
        listeners=listeners,
        pools=[pool],
    )
    assert [x["ip_address"] for x in made["additional_vips"]] == ["::1"]
    assert api.settled(made["id"])["provisioning_status"] == "ACTIVE"
    for host in (made["vip_address"], "::1"):
        for port in ports:
            serving(host, port)
            assert set(spread(host, port, 6)) == {x.name for x in backends}, (host, port)

    asked = {"vip_subnet_id": api.subnet_id(), "additional_vips": [{"subnet_id": SUBNET_V6}]}
    assert api.call("POST", "/v2/lbaas/loadbalancers", {"loadbalancer": asked})[0] == 503, "::1 is taken"
    api.call("DELETE", f"/v2/lbaas/loadbalancers/{made['id']}?cascade=true")
    api.gone(f"loadbalancers/{made['id']}")
    assert api.create("loadbalancers", "loadbalancer", **asked)["additional_vips"][0]["ip_address"] == "::1"


@pytest.mark.parametrize(
    "field, value", [("vip_sg_ids", ["10c0bac0-0000-4000-8000-00000000000a"]), ("vip_qos_policy_id", SUBNET_V6)]
)
def test_loopback_has_neither_security_groups_nor_qos(api: Api, field: str, value: object) -> None:
    asked = {"vip_subnet_id": api.subnet_id(), field: value}
    status, body = api.call("POST", "/v2/lbaas/loadbalancers", {"loadbalancer": asked})
    assert status == 501, body
    assert field in body["faultstring"]

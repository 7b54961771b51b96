"""Which operation a method and a path name, and what a wrong one is answered with."""

from __future__ import annotations

import pytest

from frontinus.api.errors import HttpError
from frontinus.api.operations import collections_without_lbaas, resource_operations, system_operations
from frontinus.api.routing import Router
from frontinus.model.errors import Invalid

ID = "5ca1ab1e-0000-4000-8000-000000000001"
ROUTER = Router((*system_operations(), *resource_operations()), collections_without_lbaas())


@pytest.mark.parametrize(
    "method, path, operation",
    [
        ("GET", "/", "versions"),
        ("GET", "/load-balancer/", "versions"),
        ("GET", "/v2", "versions.v2"),
        ("GET", "/v2.0/", "versions.v2"),
        ("GET", "/v2/lbaas", "version.lbaas"),
        ("GET", "/v2/lbaas/loadbalancers", "loadbalancer.list"),
        ("GET", "/v2.0/lbaas/loadbalancers/", "loadbalancer.list"),
        ("GET", "/v2.0/lbaas/loadbalancers.json", "loadbalancer.list"),
        ("GET", "/load-balancer/v2.0/lbaas/pools", "pool.list"),
        ("GET", "/v2/pools", "pool.list"),
        ("POST", "/v2/lbaas/listeners", "listener.create"),
        ("GET", f"/v2/lbaas/listeners/{ID}.json", "listener.show"),
        ("PUT", f"/v2/lbaas/pools/{ID}/members", "member.batch"),
        ("DELETE", f"/v2/lbaas/pools/{ID}/members/{ID}", "member.delete"),
        ("PUT", f"/v2/lbaas/loadbalancers/{ID}/failover", "loadbalancer.failover"),
        ("GET", f"/v2/lbaas/loadbalancers/{ID}/statuses", "loadbalancer.statuses"),
        ("GET", f"/v2/lbaas/l7policies/{ID}/rules/{ID}", "rule.show"),
        ("GET", "/v2/lbaas/providers", "provider.list"),
    ],
)
def test_path_leads_to_operation(method: str, path: str, operation: str) -> None:
    route = ROUTER.route(method, path)
    assert route is not None
    assert route.operation.id == operation


@pytest.mark.parametrize(
    "method, path, status",
    [
        ("GET", "/v1", 404),
        ("GET", "/v3/lbaas/loadbalancers", 404),
        ("GET", "/v2/lbaas/nothing", 404),
        ("GET", f"/v2/lbaas/loadbalancers/{ID}/listeners", 404),
        ("GET", "/v2/lbaas//loadbalancers", 404),
        ("PATCH", f"/v2/lbaas/loadbalancers/{ID}", 405),
        ("HEAD", "/v2/lbaas/loadbalancers", 405),
        ("POST", f"/v2/lbaas/loadbalancers/{ID}/stats", 405),
        ("DELETE", "/", 405),
    ],
)
def test_what_is_not_there_or_not_offered(method: str, path: str, status: int) -> None:
    with pytest.raises(HttpError) as refusal:
        ROUTER.route(method, path)
    assert refusal.value.status == status
    assert ("Allow" in refusal.value.headers) == (status == 405)


@pytest.mark.parametrize(
    "method, path",
    [
        ("POST", f"/v2/lbaas/pools/{ID}"),
        ("PUT", "/v2/lbaas/loadbalancers"),
        ("DELETE", "/v2/lbaas/listeners"),
        ("DELETE", f"/v2/lbaas/pools/{ID}/members"),
    ],
)
def test_method_in_the_wrong_place_is_a_bad_request(method: str, path: str) -> None:
    with pytest.raises(Invalid):
        ROUTER.route(method, path)


def test_options_is_answered_wherever_something_is() -> None:
    assert ROUTER.route("OPTIONS", "/v2/lbaas/pools") is None
    with pytest.raises(HttpError):
        ROUTER.route("OPTIONS", "/v2/lbaas/nothing")

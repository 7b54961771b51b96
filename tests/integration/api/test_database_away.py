"""A database server that is away: 503 with the time to come back, for every request, and nothing that outlasts it."""

from __future__ import annotations

import pytest

from frontinus.store.engine import Store
from frontinus.store.engines.pooled import PooledDatabase

from tests.integration.api.world import World
from tests.servers import SERVERS, serving


@pytest.mark.parametrize("name", list(SERVERS))
async def test_a_server_that_is_killed_costs_503_until_it_is_back(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PooledDatabase, "patience", 0.2)
    with serving(name) as server:
        url = server.make_database("frontinus")
        Store.open(url).upgrade()
        world = await World.open(url)
        made = await world.load_balancer(name="before")
        server.kill()
        for method, path, body in (
            ("GET", "loadbalancers", None),
            ("GET", f"loadbalancers/{made}", None),
            ("PUT", f"loadbalancers/{made}", {"loadbalancer": {"name": "during"}}),
            ("DELETE", f"loadbalancers/{made}", None),
        ):
            answer = await world.call(method, path, body)
            assert answer.status == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert ":secret@" not in answer.fault
        server.start()
        shown = (await world.call("GET", f"loadbalancers/{made}")).one("loadbalancer")
        assert (shown["name"], shown["provisioning_status"]) == ("before", "PENDING_CREATE")
        await world.close()

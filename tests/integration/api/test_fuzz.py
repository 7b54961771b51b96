"""The API under a fuzzer: requests made from the OpenAPI document that it serves, right ones and wrong ones, over HTTP.

Whatever is sent, no answer is a server error, and every answer is one that the document describes. Most requests name
objects that exist, so that they reach past the 404. Everyday the requests are few; the test marked `long` sends many.
How many there were is in pytest's summary."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import pytest
import requests
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import CheckContext, not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from frontinus.api.app import create_app
from frontinus.api.settings import ApiSettings
from frontinus.store.engine import Store
from frontinus.testing.fake_network import FakeNetwork

from tests.integration.api.world import SUBNET_ID, Clock, World

EVERYDAY_REQUESTS = 60
LONG_REQUESTS = 1500

Recorder: TypeAlias = Callable[[str, object], None]


async def served_document() -> Any:
    """What GET /docs/openapi.json answers; it needs no database."""
    store = Store.open("sqlite://")
    network, clock = FakeNetwork(), Clock()
    world = World(store, network, clock, create_app(store, network, ApiSettings(), clock))
    return (await world.call("GET", "/docs/openapi.json")).json


SCHEMA = schemathesis.openapi.from_dict(asyncio.run(served_document()))
OPERATIONS: dict[str, Any] = {x.ok().label: x.ok() for x in SCHEMA.get_all_operations() if isinstance(x, Ok)}


@dataclass
class Served:
    """The API on a port of this machine, with a whole load balancer in it whose ids are known by the words of paths."""

    url: str
    session: requests.Session
    ids: dict[str, str] = field(default_factory=dict)

    def refill(self) -> None:
        """A load balancer that nobody has deleted yet."""
        asked: Any = {
            "name": "fuzzed",
            "vip_subnet_id": SUBNET_ID,
            "listeners": [
                {
                    "protocol": "HTTP",
                    "protocol_port": 80,
                    "default_pool": {
                        "name": "pool",
                        "protocol": "HTTP",
                        "lb_algorithm": "ROUND_ROBIN",
                        "members": [{"address": "192.0.2.1", "protocol_port": 80}],
                        "healthmonitor": {"type": "HTTP", "delay": 3, "timeout": 2, "max_retries": 3},
                    },
                    "l7policies": [
                        {
                            "action": "REJECT",
                            "rules": [{"type": "PATH", "compare_type": "STARTS_WITH", "value": "/secret"}],
                        }
                    ],
                }
            ],
        }
        answer = self.session.post(f"{self.url}/v2/lbaas/loadbalancers", json={"loadbalancer": asked})
        assert answer.status_code == 201, answer.text
        tree = answer.json()["loadbalancer"]
        listener, pool = tree["listeners"][0], tree["pools"][0]
        self.ids = {
            "load_balancer": tree["id"],
            "listener": listener["id"],
            "pool": pool["id"],
            "member": pool["members"][0]["id"],
            "health_monitor": pool["healthmonitor"]["id"],
            "l7_policy": listener["l7policies"][0]["id"],
            "l7_rule": listener["l7policies"][0]["rules"][0]["id"],
            "quota": "shop",
            "provider": "amphora",
            **self._offers(),
        }

    def _offers(self) -> dict[str, str]:
        """A flavor and a zone that nobody has deleted yet, and their profiles."""
        ids: dict[str, str] = {}
        for profiles, key, data, collection, offer in (
            ("flavorprofiles", "flavorprofile", "flavor_data", "flavors", "flavor"),
            (
                "availabilityzoneprofiles",
                "availability_zone_profile",
                "availability_zone_data",
                "availabilityzones",
                "availability_zone",
            ),
        ):
            profile = self._make(profiles, key, {"name": "p", "provider_name": "amphora", data: "{}"})
            name = str(uuid4())
            made = self._make(
                collection, offer, {"name": name, f"{key.replace('rprofile', 'r_profile')}_id": profile["id"]}
            )
            ids |= {key.replace("rprofile", "r_profile"): profile["id"], offer: made.get("id", name)}
        return ids

    def _make(self, path: str, key: str, values: Any) -> Any:
        answer = self.session.post(f"{self.url}/v2/lbaas/{path}", json={key: values})
        assert answer.status_code == 201, answer.text
        return answer.json()[key]


@pytest.fixture(scope="module")
def served(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    database = tmp_path_factory.mktemp("fuzzed") / "frontinus.sqlite"
    database.write_bytes(migrated.read_bytes())
    # No controller answers here, and nobody shall wait for one.
    world = asyncio.run(
        World.open(database, settings=ApiSettings(preview_wait=timedelta(0), idempotency_wait=timedelta(0)))
    )
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(world.app, log_config=None, access_log=False, lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        with requests.Session() as session:
            yield Served(f"http://127.0.0.1:{listening.getsockname()[1]}", session)
    finally:
        server.should_exit = True
        thread.join()
        asyncio.run(world.close())


BODY_IDS = {
    "loadbalancer_id": "load_balancer",
    "listener_id": "listener",
    "pool_id": "pool",
    "default_pool_id": "pool",
    "redirect_pool_id": "pool",
    "flavor_id": "flavor",
    "availability_zone": "availability_zone",
    "flavor_profile_id": "flavor_profile",
    "availability_zone_profile_id": "availability_zone_profile",
    "provider": "provider",
    "provider_name": "provider",
}


def aim(case: Case[Any], served: Served) -> None:
    """Make it name what exists, so that it is judged by what it says of it."""
    case.path_parameters = {key: served.ids.get(key, value) for key, value in (case.path_parameters or {}).items()}
    if not isinstance(case.body, dict):
        return
    for asked in case.body.values():
        if isinstance(asked, dict):
            asked |= {key: served.ids[kind] for key, kind in BODY_IDS.items() if asked.get(key) is not None}
            asked |= {key: "{}" for key in ("flavor_data", "availability_zone_data") if key in asked}
            if "vip_address" in asked:
                asked |= {"vip_subnet_id": SUBNET_ID, "vip_address": None}


def is_no_server_error(context: CheckContext, response: Response, case: Case[Any]) -> bool | None:
    """501 is on purpose: what a driver cannot do is refused in so many words."""
    return None if response.status_code == 501 else not_a_server_error(context, response, case)


CHECKS = [is_no_server_error, content_type_conformance, response_schema_conformance]


def fuzz(served: Served, label: str, count: int, record: Recorder) -> None:
    operation = OPERATIONS[label]
    right = operation.as_strategy()
    wrong = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
    answered: dict[int, int] = {}

    @seed(2)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=right | wrong if "{" in label or operation.body or operation.query else right, aimed=st.integers(0, 3))
    def send(case: Case[Any], aimed: int) -> None:
        if aimed:
            aim(case, served)
        answer = case.call(base_url=served.url, session=served.session)
        answered[answer.status_code] = answered.get(answer.status_code, 0) + 1
        case.validate_response(answer, checks=CHECKS)

    served.refill()
    try:
        send()
    finally:
        record("fuzzed requests", sum(answered.values()))
        record("fuzzed requests that succeeded", sum(n for status, n in answered.items() if status < 300))
        record("server errors of fuzzed requests", sum(n for status, n in answered.items() if status == 500))


@pytest.mark.parametrize("label", OPERATIONS)
def test_no_request_meets_a_server_error(served: Served, label: str, record_property: Recorder) -> None:
    fuzz(served, label, EVERYDAY_REQUESTS, record_property)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("label", OPERATIONS)
def test_no_request_of_many_meets_a_server_error(served: Served, label: str, record_property: Recorder) -> None:
    fuzz(served, label, LONG_REQUESTS, record_property)

"""What is not a resource: the versions documents, providers, health."""

from __future__ import annotations

from starlette.responses import Response

from frontinus.api.calls import Call, empty_response, json_response
from frontinus.store import controllers
from frontinus.store.engine import Transaction

VERSIONS: tuple[tuple[str, str], ...] = (
    ("v2.0", "2016-12-11T00:00:00Z"),
    ("v2.1", "2018-04-20T00:00:00Z"),
    ("v2.2", "2018-07-31T00:00:00Z"),
    ("v2.3", "2018-12-18T00:00:00Z"),
    ("v2.4", "2018-12-19T00:00:00Z"),
    ("v2.5", "2019-01-21T00:00:00Z"),
    ("v2.6", "2019-01-25T00:00:00Z"),
    ("v2.7", "2018-01-25T12:00:00Z"),
    ("v2.8", "2019-02-12T00:00:00Z"),
    ("v2.9", "2019-03-04T00:00:00Z"),
    ("v2.10", "2019-03-05T00:00:00Z"),
    ("v2.11", "2019-06-24T00:00:00Z"),
    ("v2.12", "2019-09-11T00:00:00Z"),
    ("v2.13", "2019-09-13T00:00:00Z"),
    ("v2.14", "2019-11-10T00:00:00Z"),
    ("v2.15", "2020-03-10T00:00:00Z"),
    ("v2.16", "2020-03-15T00:00:00Z"),
    ("v2.17", "2020-04-29T00:00:00Z"),
    ("v2.18", "2020-04-29T01:00:00Z"),
    ("v2.19", "2020-05-12T00:00:00Z"),
    ("v2.20", "2020-08-02T00:00:00Z"),
    ("v2.21", "2020-09-03T00:00:00Z"),
    ("v2.22", "2020-09-04T00:00:00Z"),
    ("v2.23", "2020-09-07T00:00:00Z"),
    ("v2.24", "2020-10-15T00:00:00Z"),
    ("v2.25", "2021-10-02T00:00:00Z"),
    ("v2.26", "2022-08-29T00:00:00Z"),
    ("v2.27", "2023-05-05T00:00:00Z"),
    ("v2.28", "2023-11-08T00:00:00Z"),
    ("v2.29", "2024-10-15T00:00:00Z"),
    ("v2.30", "2025-02-26T00:00:00Z"),
)
"""Minor versions and when they came (behaviours.yaml discovery.versions); the last one is what is spoken."""


async def show_versions(call: Call) -> Response:
    """Every version links to the one /v2 of this endpoint, under the host that the client used."""
    newest = VERSIONS[-1][0]
    versions = [
        {
            "id": version,
            "status": "CURRENT" if version == newest else "SUPPORTED",
            "updated": updated,
            "links": [{"href": f"{call.base}/v2", "rel": "self"}],
        }
        for version, updated in VERSIONS
    ]
    return json_response({"versions": versions})


async def show_version_name(_call: Call) -> Response:
    """What the reference answers below /v2."""
    return json_response("v2")


async def list_providers(call: Call) -> Response:
    """The providers that may be asked for: those of the settings, and others that controllers have registered for."""
    settings = call.api.settings
    described = {x.name: x.description for x in settings.providers}
    for name in await call.api.store.read(controllers.providers):
        described.setdefault(name, "")
    wanted = call.arguments("fields")
    providers = [
        {key: value for key, value in (("name", name), ("description", text)) if not wanted or key in wanted}
        for name, text in described.items()
    ]
    return json_response({"providers": providers})


async def check_health(call: Call) -> Response:
    """204, or a small JSON document to who asks for JSON; 503 while the database cannot be read."""

    def work(tx: Transaction) -> None:
        controllers.providers(tx)

    await call.api.store.read(work)
    if "json" in call.headers.get("accept", ""):
        return json_response({"detailed": False, "reasons": []})
    return empty_response(204)

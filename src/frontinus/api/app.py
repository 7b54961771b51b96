"""The ASGI application: one request from its first byte to its answer. Open operations.py for what can be asked.

In this order, which is the contract's: authenticate, route, media types, size, query arguments, policy, the handler. Whatever a
handler raises on purpose is mapped by errors.py; what nobody meant is caught in one place, so that it costs one request
and not the process."""

from __future__ import annotations

import time
from dataclasses import replace
from uuid import uuid4

import structlog
from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from frontinus.api import calls, dry_run, idempotency
from frontinus.api.calls import Api, Call, empty_response
from frontinus.api.dry_run import ReadOnlyStore
from frontinus.api.errors import Unauthenticated, answer_error, fault_response, status_of
from frontinus.api.identity.build import build_authenticator
from frontinus.api.identity.interface import Authenticator, Identity
from frontinus.api.metrics import ApiMetrics
from frontinus.api.openapi import document_operations
from frontinus.api.operations import (
    collections_without_lbaas,
    compat_operations,
    resource_operations,
    system_operations,
)
from frontinus.api.policy.enforcer import Enforcer
from frontinus.api.policy.guard import Guard
from frontinus.api.ports import Clock, SecretReader, VipAllocator
from frontinus.api.requests import decode
from frontinus.api.routing import WRITES, Body, Operation, Route, Router
from frontinus.api.settings import ApiSettings
from frontinus.model.errors import FrontinusError, Invalid
from frontinus.store.engine import Store

log = structlog.get_logger(__name__)

_UNROUTED = "unrouted"
_UNAUTHENTICATED = "unauthenticated"
_NOBODY = Identity()

OPEN_PATHS = frozenset({"/", "/load-balancer/", "/healthcheck", "/load-balancer/healthcheck"})
"""What is answered without asking who calls: these paths exactly (behaviours.yaml http.unauthenticated_paths)."""

METRICS_PATH = "/metrics"


def create_app(
    store: Store,
    network: VipAllocator,
    settings: ApiSettings,
    clock: Clock,
    *,
    authenticator: Authenticator | None = None,
    registry: CollectorRegistry | None = None,
    secrets: SecretReader | None = None,
) -> ASGIApp:
    """The API as an ASGI application. `authenticator` is by default what the settings name; whoever hands one in closes it.
    `registry` is what /metrics shows; by default one of the API's own. Raises Invalid for settings that cannot work."""
    metrics = ApiMetrics(registry or CollectorRegistry())
    api = Api(
        store=store,
        network=network,
        settings=settings,
        clock=clock,
        authenticator=authenticator or build_authenticator(settings, clock),
        secrets=secrets,
    )
    enforcer = Enforcer(settings.policy_file, enforce_new_defaults=settings.enforce_new_defaults)
    return ApiApp(api, enforcer, metrics)


class ApiApp:
    def __init__(self, api: Api, enforcer: Enforcer, metrics: ApiMetrics) -> None:
        async def show_metrics(_call: Call) -> Response:
            return metrics.exposition()

        self._api = api
        self._metrics = metrics
        resources = resource_operations()
        operations = [
            *system_operations(),
            *resources,
            *document_operations(resources),
            Operation("metrics", "GET", METRICS_PATH, show_metrics, "Metrics.", arguments=None, plain=True),
        ]
        if api.settings.network_compat:
            operations += compat_operations()
        self._guard = Guard(enforcer, operations)
        self._router = Router(operations, collections_without_lbaas())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"the API speaks HTTP, not {scope['type']}")
        request = Request(scope, receive)
        request_id = f"req-{uuid4()}"
        started = time.perf_counter()
        operation = _UNROUTED
        try:
            identity = await self._authenticate(request)
            route = self._router.route(request.method, scope["path"])
            if route is None:
                response = empty_response(200)
            else:
                operation = _counted_as(route, scope["query_string"])
                response = await self._answer(request, route, identity)
        except Unauthenticated as error:
            operation = _UNAUTHENTICATED
            response = answer_error(error)
        except Exception as error:  # noqa: BLE001 - the last resort: a bug costs this request, not the process
            response = _answer_failure(error, request_id, operation)
        response.headers["x-openstack-request-id"] = request_id
        self._metrics.count(operation, response.status_code, time.perf_counter() - started)
        await response(scope, receive, send)

    async def _authenticate(self, request: Request) -> Identity:
        """Before routing, so that who may not ask does not learn what is there."""
        path = request.scope["path"]
        if path in OPEN_PATHS or (self._api.settings.open_metrics and path == METRICS_PATH):
            return _NOBODY
        return await self._api.authenticator.authenticate(request.headers)

    async def _answer(self, request: Request, route: Route, identity: Identity) -> Response:
        api = self._api
        operation, params, prefix = route.operation, route.params, route.prefix
        headers = request.headers
        body = b""
        if not operation.plain:
            calls.check_accept(headers)
            body = await self._body(request, operation)
        query = calls.read_query(request.scope["query_string"])
        is_dry_run = False
        if query and operation.method in WRITES:
            is_dry_run, query = _take_dry_run(query)
            api = replace(api, store=ReadOnlyStore(api.store)) if is_dry_run else api
        if operation.arguments is not None:
            calls.refuse_unknown_arguments(query, operation.arguments)
        call = Call(
            api=api,
            identity=identity,
            headers=headers,
            params=params,
            query=query,
            body=body,
            base=calls.base_url(request, prefix, api.settings),
            path=request.scope["path"].removeprefix(prefix),
            dry_run=is_dry_run,
        )
        restricted_to = await self._guard.admit(call, operation)
        if restricted_to is not None:
            call = replace(call, restricted_to=restricted_to)
        if operation.method == "POST" and not is_dry_run and idempotency.HEADER in headers:
            response = await idempotency.answer_once(call, operation)
            if idempotency.REPLAYED_HEADER in response.headers:
                self._metrics.count_replay(operation.id)
            return response
        return await operation.handler(call)

    async def _body(self, request: Request, operation: Operation) -> bytes:
        headers = request.headers
        limit = self._api.settings.max_body_bytes
        if operation.body is Body.NONE:
            if headers.get("content-length", "0") != "0" and operation.method == "GET":
                _refuse_array(await calls.read_body(request, limit))
            return b""
        body = await calls.read_body(request, limit)
        if body or operation.body is Body.REQUIRED:
            calls.check_content_type(headers, body)
        return body


def _counted_as(route: Route, query: bytes) -> str:
    """The operation's name in metrics: a dry run makes nothing, and takes its time by the clock."""
    operation = route.operation
    if query and operation.method in WRITES and b"dry_run=true" in query.lower():
        return f"{operation.id}.{dry_run.ARGUMENT}"
    return operation.id


def _take_dry_run(query: tuple[tuple[str, str], ...]) -> tuple[bool, tuple[tuple[str, str], ...]]:
    """Whether a dry run is asked for, and the other arguments."""
    values = [dry_run.is_asked_for(value) for name, value in query if name == dry_run.ARGUMENT]
    if len(values) > 1:
        raise Invalid(dry_run.ARGUMENT, "can be given only once")
    return any(values), tuple(x for x in query if x[0] != dry_run.ARGUMENT)


def _answer_failure(error: Exception, request_id: str, operation: str) -> Response:
    """What was raised on purpose is said as it is; what is our fault goes to the log, and the caller is told where."""
    if isinstance(error, FrontinusError) and status_of(error) != 500:
        if status_of(error) > 500:
            log.warning("request failed", request_id=request_id, operation=operation, reason=str(error))
        return answer_error(error)
    log.error("request met a bug", request_id=request_id, operation=operation, exc_info=error)
    return fault_response(500, f"an internal error occurred; the log has it under {request_id}")


def _refuse_array(body: bytes) -> None:
    """A GET may come with an object, which is ignored, but not with a list (behaviours.yaml errors.malformed)."""
    if isinstance(decode(body), list):
        raise Invalid("", "GET takes no list in its body")


async def _live(receive: Receive, send: Send) -> None:
    """The server's start and stop: nothing of ours hangs on them; whoever made the store closes it."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return

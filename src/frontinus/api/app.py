"""The ASGI application: one request from its first byte to its answer. Open operations.py for what can be asked.

In this order, which is the contract's: route, authenticate, media types, size, query arguments, the handler. Whatever a
handler raises on purpose is mapped by errors.py; what nobody meant is caught in one place, so that it costs one request
and not the process."""

from __future__ import annotations

import time
from uuid import uuid4

import structlog
from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from frontinus.api import calls
from frontinus.api.calls import Api, Call, empty_response
from frontinus.api.errors import answer_error, fault_response, status_of
from frontinus.api.identity import Authenticator, Identity, NoAuthentication
from frontinus.api.metrics import ApiMetrics
from frontinus.api.openapi import document_operations
from frontinus.api.operations import (
    collections_without_lbaas,
    compat_operations,
    resource_operations,
    system_operations,
)
from frontinus.api.ports import Clock, VipAllocator
from frontinus.api.requests import decode
from frontinus.api.routing import Body, Operation, Router
from frontinus.api.settings import ApiSettings
from frontinus.model.errors import FrontinusError, Invalid
from frontinus.model.ids import ProjectId
from frontinus.store.engine import Store

log = structlog.get_logger(__name__)

_UNROUTED = "unrouted"
_NOBODY = Identity(project_id=ProjectId(""))


def create_app(
    store: Store,
    network: VipAllocator,
    settings: ApiSettings,
    clock: Clock,
    *,
    authenticator: Authenticator | None = None,
    registry: CollectorRegistry | None = None,
) -> ASGIApp:
    """The API as an ASGI application. `registry` is what /metrics shows; by default one of the API's own."""
    metrics = ApiMetrics(registry or CollectorRegistry())
    api = Api(
        store=store,
        network=network,
        settings=settings,
        clock=clock,
        authenticator=authenticator or NoAuthentication(settings.default_project_id),
    )
    return ApiApp(api, metrics)


class ApiApp:
    def __init__(self, api: Api, metrics: ApiMetrics) -> None:
        async def show_metrics(_call: Call) -> Response:
            return metrics.exposition()

        self._api = api
        self._metrics = metrics
        resources = resource_operations()
        operations = [
            *system_operations(),
            *resources,
            *document_operations(resources),
            Operation("metrics", "GET", "/metrics", show_metrics, "Metrics.", arguments=None, plain=True),
        ]
        if api.settings.network_compat:
            operations += compat_operations()
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
            route = self._router.route(request.method, scope["path"])
            if route is None:
                response = empty_response(200)
            else:
                operation = route.operation.id
                response = await self._answer(request, route.operation, route.params, route.prefix)
        except Exception as error:  # noqa: BLE001 - the last resort: a bug costs this request, not the process
            response = _answer_failure(error, request_id, operation)
        response.headers["x-openstack-request-id"] = request_id
        self._metrics.count(operation, response.status_code, time.perf_counter() - started)
        await response(scope, receive, send)

    async def _answer(self, request: Request, operation: Operation, params: dict[str, str], prefix: str) -> Response:
        api = self._api
        headers = request.headers
        identity = _NOBODY
        body = b""
        if not operation.plain:
            identity = await api.authenticator.authenticate(headers)
            calls.check_accept(headers)
            body = await self._body(request, operation)
        query = calls.read_query(request.scope["query_string"])
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
        )
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

"""What the API counts of itself: requests by operation and status, and how long they took."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.responses import Response

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class ApiMetrics:
    """Owned by one event loop; one registry per app, so that two in one process do not collide."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._requests = Counter(
            "frontinus_api_requests",
            "Requests answered, by operation and status.",
            ("operation", "status"),
            registry=registry,
        )
        self._seconds = Histogram(
            "frontinus_api_request_seconds",
            "Seconds from a request's first byte to its answer.",
            ("operation",),
            buckets=_SECONDS,
            registry=registry,
        )

        self._replays = Counter(
            "frontinus_api_replays",
            "Creates that were sent again and got the first answer, by operation.",
            ("operation",),
            registry=registry,
        )

    def count_replay(self, operation: str) -> None:
        self._replays.labels(operation).inc()

    def count(self, operation: str, status: int, seconds: float) -> None:
        self._requests.labels(operation, str(status)).inc()
        self._seconds.labels(operation).observe(seconds)

    def exposition(self) -> Response:
        """Everything in the registry, in Prometheus' text format."""
        return Response(generate_latest(self._registry), 200, {"Content-Type": CONTENT_TYPE_LATEST})

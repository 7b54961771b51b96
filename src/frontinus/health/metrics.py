"""What a health receiver counts of what it hears. docs/reference/metrics.md tells each."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class HealthMetrics:
    """Owned by one event loop; one for each registry, which several parts of a process may share."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        into = CollectorRegistry() if registry is None else registry
        self.accepted = Counter(
            "frontinus_health_datagrams_accepted", "Datagrams taken in: verified, and new.", registry=into
        )
        self.refused = Counter(
            "frontinus_health_datagrams_refused",
            "Datagrams that were not taken in, by reason.",
            ("reason",),
            registry=into,
        )
        self.watched = Gauge("frontinus_health_amphorae_watched", "Amphorae that are meant to be heard.", registry=into)
        self.suspected = Gauge(
            "frontinus_health_amphorae_suspected",
            "Amphorae of these that are silent past their deadline.",
            registry=into,
        )
        self.braked = Gauge(
            "frontinus_health_braked", "1 while so many are silent at once that nobody is suspected.", registry=into
        )
        self.suspicions = Counter("frontinus_health_suspicions", "Suspicions raised.", registry=into)
        self.failed_turns = Counter(
            "frontinus_health_failed_turns",
            "Turns that could not be finished, by which; nothing is lost by one, and it is tried again.",
            ("turn",),
            registry=into,
        )

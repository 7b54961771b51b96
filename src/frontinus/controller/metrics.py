"""What a controller counts of its work. docs/reference/metrics.md tells each; no label has values that a tenant chooses."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class ControllerMetrics:
    """Owned by one event loop; one for each registry, which several parts of a process may share."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        into = CollectorRegistry() if registry is None else registry
        self.reconciles = Counter(
            "frontinus_controller_reconciles",
            "Outcomes of work on one load balancer: settled, partial (some objects left out), deleted, waiting, fault, "
            "lease-lost.",
            ("outcome",),
            registry=into,
        )
        self.reconcile_seconds = Histogram(
            "frontinus_controller_reconcile_seconds",
            "Seconds from claim to release of one load balancer.",
            buckets=_SECONDS,
            registry=into,
        )
        self.faults = Counter(
            "frontinus_controller_faults",
            "Faults recorded, by code (docs/operations.md); a fault that stays counts again with each try.",
            ("code",),
            registry=into,
        )
        self.pushes = Counter(
            "frontinus_controller_pushes",
            "Configurations carried to amphorae, by how they got there: unchanged, start, runtime, reload, stop.",
            ("action",),
            registry=into,
        )
        self.push_seconds = Histogram(
            "frontinus_controller_push_seconds",
            "Seconds of one push, as the controller sees it.",
            buckets=_SECONDS,
            registry=into,
        )
        self.certificates = Gauge(
            "frontinus_controller_certificates",
            "Certificates in use by listeners and pools, by how soon they end: ended, 7d (within seven days), 30d, 90d, "
            "later, unknown (the secret driver does not say), unreadable. Each stands in one of them.",
            ("ends",),
            registry=into,
        )
        self.certificate_soonest_end = Gauge(
            "frontinus_controller_certificate_soonest_end_seconds",
            "When the first of the certificates in use ends, or has ended, in seconds since the epoch; infinite when none "
            "is in use.",
            registry=into,
        )
        self.renewals = Counter(
            "frontinus_controller_renewals",
            "Identities (certificates and trusted authorities) of amphorae that were due, by outcome: renewed, failed, "
            "outgrown (an agent too old for it, replaced).",
            ("outcome",),
            registry=into,
        )
        self.orphans = Gauge(
            "frontinus_controller_orphans",
            "Amphorae, load balancers and files that were found outside with nobody knowing them: `waiting` for their grace "
            "to end, or `held` because there are too many to be believed (frontinus sweep list).",
            ("state",),
            registry=into,
        )
        self.spares = Gauge(
            "frontinus_controller_spares", "Amphorae that run and wait for a load balancer.", registry=into
        )
        self.leases = Gauge(
            "frontinus_controller_leases", "Load balancers that this controller is working on now.", registry=into
        )
        self.due = Gauge(
            "frontinus_controller_due",
            "Load balancers of this driver that are due and that nobody works on: the backlog.",
            registry=into,
        )

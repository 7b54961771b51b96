"""How the controller works: every limit has a name, a unit and a reason."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class Outgrown(StrEnum):
    """What becomes of an amphora whose agent the driver does not serve (any more)."""

    REPLACE = "replace"
    REFUSE = "refuse"


@dataclass(frozen=True)
class SparesOf:
    """Spare amphorae for load balancers of one flavor, of one availability zone, or of both: `[[controller.spares_of]]`."""

    count: int
    flavor: str = ""
    """Name or id; empty: for load balancers whose flavor says nothing of how amphorae are made."""

    availability_zone: str = ""
    """Its name; empty: for those without one that says something of it."""


@dataclass(frozen=True)
class ControllerSettings:
    """Built once in main.py and passed down."""

    lease_duration: timedelta = timedelta(seconds=5)
    """How long a claim holds without renewal. A killed controller's work is resumed elsewhere after at most this; a
    renewal goes out every third of it, so that one lost renewal does not lose the lease."""

    poll_interval: timedelta = timedelta(seconds=1)
    """How often due work is looked for when no wake-up came. A lost wake-up costs at most this."""

    concurrency: int = 32
    """Load balancers converged at once by one controller."""

    coalesce_window: timedelta = timedelta(milliseconds=50)
    """Edits of one load balancer that come while a push of it is under way, or within this after it, become one push. A
    change that finds no push under way is pushed at once, and none waits longer than this for the next push."""

    keep_alive_interval: timedelta = timedelta(seconds=5)
    """How often the controller says in the store that it is there."""

    boot_timeout: timedelta | None = None
    """From build to the agent's first answer. An amphora that takes longer is given up and another is built. Not set: what
    the compute driver says (20 s for `process` and `netns`; for `qemu` 60 s with KVM, 180 s emulated)."""

    retry_budget: timedelta = timedelta(seconds=8)
    """For so long after its first failure a wish stays PENDING; then it is reported as ERROR and still tried again."""

    outage_budget: timedelta = timedelta(minutes=1)
    """As retry_budget, where a service outside (Nova, Neutron, Keystone, …) was away meanwhile, as it is when it is restarted.
    Longer, since Terraform, Heat and Kubernetes wait while it is PENDING, and take ERROR for the end."""

    backoff_base: timedelta = timedelta(milliseconds=500)
    """The pause after the first failure; it doubles with each further one."""

    backoff_cap: timedelta = timedelta(seconds=30)
    """No pause is longer: what heals by itself is noticed at most this late."""

    bind_retry_cap: timedelta = timedelta(seconds=5)
    """As backoff_cap, for a port that the kernel does not give: trying is cheap and a person is likely watching."""

    hang_deadline: timedelta = timedelta(seconds=10)
    """An agent that neither beats nor answers while its place runs is given up after this."""

    replacements_at_once: int = 20
    """Load balancers, of the whole installation, of which an amphora that nobody gave up may be torn down at a time. Above
    the concurrency of one controller, which is a limit already; the others wait, and say so. Failovers that were asked for
    are not counted."""

    outgrown_amphorae: Outgrown = Outgrown.REPLACE
    """What happens when a push finds an agent of a version that the driver does not serve: `replace` the amphora from the
    current image, of a pair one after the other; or `refuse`, and show a fault until somebody asks for a failover."""

    removal_patience: timedelta = timedelta(seconds=20)
    """For so long compute may take an amphora away before the next one is built (a host that is dead takes minutes). Then its
    ports are deleted first, so that nothing of it is reached any more, and it is taken away afterwards. Only where amphorae
    have ports."""

    revive_window: timedelta = timedelta(minutes=1)
    """An agent that dies again within this after it was started again in place is not revived but replaced."""

    sweep_interval: timedelta = timedelta(seconds=60)
    """How often orphans are looked for: what stands outside under our names, and no row knows. In a cloud by one or two
    controllers of all, else by each, which sees its own machine."""

    orphan_grace: timedelta = timedelta(minutes=5)
    """How long an orphan is only told of before it is deleted, also by `frontinus sweep delete`. Far above what a request of
    the API can take: a VIP is given before its load balancer is recorded."""

    witness_interval: timedelta = timedelta(seconds=3)
    """How often compute is asked about amphorae that were not heard lately. It is what brings back a fleet of which so
    much died at once that the ear does not believe it."""

    unheard_after: timedelta = timedelta(seconds=8)
    """Not heard for so long is a reason to ask compute. Above the interval at which last-seen times are written
    (HealthSettings.seen_interval), so that of a fleet in health nobody is asked about."""

    spares: int | None = None
    """How many amphorae run without a load balancer, to be taken by the next create or replacement, which is then a push
    only. Not set: 2 where amphorae start slowly (virtual machines), else none."""

    spares_of: tuple[SparesOf, ...] = ()
    """More of them, for flavors and availability zones that say of what or where amphorae are made (compute_flavor,
    amp_image_tag, compute_zone, management_network): such load balancers take none of the others."""

    spare_interval: timedelta = timedelta(seconds=2)
    """How often spare amphorae are looked after. A slot is looked at by one controller in this time."""

    renewal_interval: timedelta = timedelta(seconds=10)
    """How often amphorae are looked for whose certificate is due, or that know another authority than they should."""

    rollout_interval: timedelta = timedelta(seconds=2)
    """How often a controller looks for a rollout to move on. One that is under way is looked at several times a second, by the
    controller that has it."""

    secret_watch_interval: timedelta = timedelta(seconds=1)
    """How often the secret store is asked what changed in it. A replaced certificate is served at most this much later,
    and the time of a push."""

    expiry_look_interval: timedelta = timedelta(hours=6)
    """How often the certificates in use are looked through: those that end soon are told in the log then, and the metrics
    of all are brought up to date. A certificate is opened when it is new or has changed, and once a week."""

    expiry_warning: timedelta = timedelta(days=30)
    """A certificate that ends within this is worth a warning. Public ones are renewed with a third of 90 days left."""

    deleted_retention: timedelta = timedelta(days=7)
    """How long rows of deleted load balancers are kept (Octavia's load_balancer_expiry_age)."""

"""Who is to carry a load balancer, and what that driver can do: read from the cohorts that controllers registered.

Runs inside a transaction and calls nothing else. Where only controllers of a version that knew no cohorts run, what they
published counts, and a new load balancer gets no cohort until a newer controller takes it."""

from __future__ import annotations

from frontinus.api.calls import Api
from frontinus.model.capabilities import Capabilities
from frontinus.model.cohorts import Cohort, CohortName, for_new, newest
from frontinus.model.errors import Invalid, Retry, Unsupported
from frontinus.model.tree import LoadBalancer
from frontinus.store import cohorts, controllers
from frontinus.store.engine import Transaction

ASK_AGAIN_S = 30.0


def place(tx: Transaction, api: Api, provider: str) -> tuple[Capabilities, CohortName | None]:
    """The cohort that gets a new load balancer of this provider, and what it can do. Raises what `capabilities_of` does, and
    Retry while every cohort of the provider is draining: what it carries goes on, and nothing new is taken."""
    known = _serving(tx, api, provider)
    if not known:
        return capabilities_of(tx, api, provider), None
    chosen = for_new(known, api.settings.served_by(provider), api.settings.default_driver, api.clock())
    if chosen is None:
        names = ", ".join(sorted(str(x.name) for x in known))
        raise Retry(
            f"provider {provider} takes no new load balancers at present: what would carry them is being drained ({names}). "
            "Those that exist are served and can be changed",
            after=ASK_AGAIN_S,
        )
    return chosen.capabilities, chosen.name


def cohort_of(tx: Transaction, api: Api, load_balancer: LoadBalancer) -> CohortName | None:
    """Who carries a load balancer, or would if it were made now."""
    found = cohorts.of(tx, load_balancer.id)
    if found is not None:
        return found
    known = _serving(tx, api, load_balancer.provider)
    served_by = api.settings.served_by(load_balancer.provider)
    chosen = for_new(known, served_by, api.settings.default_driver, api.clock())
    return None if chosen is None else chosen.name


def capabilities_for(tx: Transaction, api: Api, load_balancer: LoadBalancer) -> Capabilities:
    """What the driver that carries this load balancer can do. Raises as `capabilities_of`, where it has none yet."""
    found = cohorts.capabilities_of(tx, load_balancer.id)
    return capabilities_of(tx, api, load_balancer.provider) if found is None else found


def capabilities_of(tx: Transaction, api: Api, provider: str, field: str = "load_balancer.provider") -> Capabilities:
    """What the provider's driver can do. Raises, naming `field`, Invalid for a provider that is not enabled, and
    Unsupported for one that no controller has ever served."""
    settings = api.settings
    served_by = settings.served_by(provider)
    known = _serving(tx, api, provider)
    chosen = for_new(known, served_by, settings.default_driver, api.clock()) or newest(known)
    if chosen is not None:
        return chosen.capabilities
    found = controllers.capabilities_of(tx, served_by)
    if found is not None:
        return found
    if not any(x.name == provider for x in settings.providers):
        names = ", ".join(sorted({x.name for x in settings.providers} | set(controllers.providers(tx))))
        raise Invalid(field, f"{provider[:80]!r} is not enabled; there are {names}")
    raise Unsupported(
        field,
        f"no controller has registered for {served_by}: start one (`frontinus up` has one) and try again",
    )


def _serving(tx: Transaction, api: Api, provider: str) -> list[Cohort]:
    served_by = api.settings.served_by(provider)
    return [x for x in cohorts.all_cohorts(tx) if served_by in x.providers]

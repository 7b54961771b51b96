"""A third-party provider driver (octavia-lib), unchanged, behind one call: what it raises becomes one of our errors.

Its methods block and know no event loop, so each runs in a thread, one at a time: Octavia calls a driver for one load
balancer from one request. Loaded only in a process of its own (`frontinus controller --provider`): what it blocks, leaks
or patches is nobody else's trouble."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import structlog
from octavia_lib.api.drivers import data_models, exceptions, provider_base

from frontinus.drivers.provider import views
from frontinus.drivers.provider.loading import prepare
from frontinus.model.capabilities import FEATURES, Capabilities, Foreign
from frontinus.model.certificates import NO_SECRETS, Secrets
from frontinus.model.enums import (
    HealthMonitorType,
    LbAlgorithm,
    ListenerProtocol,
    PoolProtocol,
    SessionPersistenceType,
)
from frontinus.model.errors import Bug, Conflict, FrontinusError, Invalid, Retry, Unsupported, blaming
from frontinus.model.offer_questions import OfferAnswer, Offered, OfferQuestion, Verdict
from frontinus.model.provider_calls import FAILOVER, ProviderCall
from frontinus.model.tree import LoadBalancer, LoadBalancerTree

ENTRY_POINTS = "octavia.api.drivers"
_NOTHING = Offered()

log = structlog.get_logger()

_NOT_PASSED_ON = frozenset({"prometheus_tls", "vrrp"})
"""Features of which a driver of octavia-lib is told nothing."""


def installed() -> list[str]:
    """The names of the providers whose drivers are installed."""
    return sorted({x.name for x in entry_points(group=ENTRY_POINTS)})


class OctaviaProvider:
    """One driver, made once. `name` and `version` are its cohort's."""

    def __init__(self, provider: str, driver: Any, version: str, foreign: Foreign | None = None) -> None:
        """`foreign` is what the driver said that it takes in flavors and zones, and whether it does failovers."""
        self.provider = provider
        self._foreign = Foreign() if foreign is None else foreign
        self.name = f"provider:{provider}"
        self.version = version
        self._driver = driver
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"provider-{provider}")

    @classmethod
    async def load(
        cls, provider: str, sockets: tuple[str, str, str], config_files: Sequence[Path] = ()
    ) -> OctaviaProvider:
        """The driver under this name. The sockets (status, statistics, lookups) must be served already: some wait for them
        when they are made. Raises Invalid."""
        found = list(entry_points(group=ENTRY_POINTS, name=provider))
        if not found:
            known = ", ".join(installed()) or "none"
            raise Invalid("provider", f"no driver is installed for {provider!r}; installed: {known}")
        point = found[0]
        prepare(sockets, [str(x) for x in config_files])
        try:
            driver = await asyncio.to_thread(_made, point)
        except Exception as error:  # foreign code: whatever it raises, the operator must hear whose trouble it is
            raise Invalid(
                "provider",
                f"the driver of {provider!r} ({point.value}) cannot be made: {type(error).__name__}: {error}",
            ) from error
        driver.name = provider
        version = "0" if point.dist is None else point.dist.version
        return cls(provider, driver, version, await asyncio.to_thread(foreign_of, driver))

    def offers(self) -> Capabilities:
        """All that we can hand on: a provider driver cannot say beforehand what it supports."""
        return Capabilities(
            listener_protocols=frozenset(ListenerProtocol) - {ListenerProtocol.PROMETHEUS},
            pool_protocols=frozenset(PoolProtocol),
            lb_algorithms=frozenset(LbAlgorithm),
            health_monitor_types=frozenset(HealthMonitorType),
            session_persistence_types=frozenset(SessionPersistenceType),
            features=frozenset(FEATURES) - _NOT_PASSED_ON,
            flavor_keys=frozenset(),
            foreign=self._foreign,
        )

    async def judge(self, question: OfferQuestion) -> OfferAnswer:
        """Whether the driver takes the data of a flavor or of a zone. What is asked about neither is none of its matter."""
        loop = asyncio.get_running_loop()
        asked = [("validate_flavor", question.flavor), ("validate_availability_zone", question.zone)]
        for name, data in asked:
            if data is None:
                continue
            try:
                await loop.run_in_executor(self._threads, getattr(self._driver, name), data)
            except (exceptions.UnsupportedOptionError, exceptions.NotImplementedError, NotImplementedError) as error:
                words = _words(error, f"provider {self.provider} takes none")
                return OfferAnswer(verdict=Verdict.UNSUPPORTED, words=words)
            except Exception as error:  # noqa: BLE001 - whatever foreign code raises, who asked is told
                return OfferAnswer(verdict=Verdict.TROUBLE, words=_words(error, type(error).__name__))
        return OfferAnswer(verdict=Verdict.TAKEN)

    async def call(self, call: ProviderCall, secrets: Secrets = NO_SECRETS, offered: Offered = _NOTHING) -> None:
        """Make a call; when it returns, the driver has accepted. Raises Unsupported and Conflict, which only a change of
        the wish can cure, and Retry, each blaming the object."""
        loop = asyncio.get_running_loop()
        with blaming(call.kind, call.object_id):
            try:
                await loop.run_in_executor(self._threads, self._making(call, secrets, offered))
            except (exceptions.UnsupportedOptionError, exceptions.NotImplementedError, NotImplementedError) as error:
                raise Unsupported("", _words(error, f"provider {self.provider} does not do {call.name}")) from error
            except FrontinusError:
                raise  # ours, about the addresses
            except exceptions.Conflict as error:
                raise Conflict("", _words(error, f"provider {self.provider}: conflict")) from error
            except (
                Exception
            ) as error:  # a DriverError, or whatever else foreign code raises: it may be better next time
                raise Retry(
                    f"provider {self.provider}, {call.name}: {_words(error, type(error).__name__)}",
                    after=1.0,
                    code="provider-error",
                ) from error

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _making(self, call: ProviderCall, secrets: Secrets, offered: Offered) -> Callable[[], None]:
        method = getattr(self._driver, call.name, None)
        if method is None:
            raise Unsupported("", f"provider {self.provider} has no {call.name}")
        arguments = _with_offers(_arguments(call, secrets), offered)

        def make() -> None:
            if call.name == "loadbalancer_create":
                self._claim_vip(call)
            method(*arguments)

        return make

    def _claim_vip(self, call: ProviderCall) -> None:
        """The driver is told of the addresses as of ports that a user brought: they are given already."""
        load_balancer = call.after
        if not isinstance(load_balancer, LoadBalancer):
            raise Bug(f"{call.name} is about no load balancer")
        first, additional = views.vip(load_balancer)
        try:
            answer = self._driver.create_vip_port(load_balancer.id, load_balancer.project_id, first, additional)
        except (exceptions.NotImplementedError, NotImplementedError):
            return  # the addresses are ours to give
        given = answer[0] if isinstance(answer, tuple) else answer
        if given and given.get("vip_address") not in (None, load_balancer.vip.address):
            raise Retry(
                f"the provider gives {given['vip_address']} and not {load_balancer.vip.address}, which was told already",
                after=10.0,
                code="vip-differs",
            )


def _made(point: EntryPoint) -> Any:
    return point.load()()


def foreign_of(driver: Any) -> Foreign:
    """What a driver says that it takes in flavors and zones, and whether it does failovers. Blocks."""
    method = getattr(type(driver), FAILOVER, None)
    return Foreign(
        flavor_words=_metadata(driver, "get_supported_flavor_metadata"),
        zone_words=_metadata(driver, "get_supported_availability_zone_metadata"),
        fails_over=method not in (None, provider_base.ProviderDriver.loadbalancer_failover),
    )


def _metadata(driver: Any, name: str) -> dict[str, str] | None:
    try:
        told = getattr(driver, name)()
    except (exceptions.NotImplementedError, NotImplementedError):
        return None
    except Exception as error:  # noqa: BLE001 - foreign code: a driver that cannot tell may be able to work
        log.warning("a provider's driver does not tell what it takes", call=name, reason=_words(error, repr(error)))
        return None
    return {str(key): str(words) for key, words in dict(told or {}).items()}


def _with_offers(arguments: tuple[Any, ...], offered: Offered) -> tuple[Any, ...]:
    """A whole load balancer is told what its flavor and its zone stand for; what differs in an update is never that."""
    for each in arguments:
        if isinstance(each, data_models.LoadBalancer) and each.flavor is not data_models.Unset:
            each.flavor, each.availability_zone = dict(offered.flavor), dict(offered.zone)
    return arguments


def _arguments(call: ProviderCall, secrets: Secrets) -> tuple[Any, ...]:
    before, after = call.before, call.after
    settled, then = call.settled, call.then
    if call.name == FAILOVER:
        return (call.object_id,)
    if call.name == "member_batch_update" and then is not None:
        return call.object_id, [views.view(x, then) for x in then.members_of(call.object_id)]
    if after is None:
        if before is None or settled is None:
            raise Bug(f"{call.name} is about nothing")
        cascade = (True,) if call.name == "loadbalancer_delete" and _has_children(settled) else ()
        return (views.view(before, settled, secrets), *cascade)
    if before is None or settled is None:
        return (views.bare(after, secrets),)
    return views.view(before, settled, secrets), views.difference(before, after, secrets)


def _has_children(tree: LoadBalancerTree) -> bool:
    return next(tree.children(), None) is not None


def _words(error: BaseException, otherwise: str) -> str:
    """What the driver says to the user."""
    return str(getattr(error, "user_fault_string", None) or str(error) or otherwise)

"""What is to be changed in Keystone's catalogue: played against a Keystone of values until nothing remains."""

from __future__ import annotations

import msgspec
import pytest

from frontinus.cli.openstack import catalogue
from frontinus.cli.openstack.catalogue import Endpoint, Registered, Service, Step, SwitchOff, Wish
from frontinus.cli.openstack.judging import ROLES
from frontinus.cli.openstack.register import _carry_out, _Keystone
from frontinus.model.errors import Conflict, Invalid, Retry

URL, OLD = "http://lb.example.org:9876", "http://old.example.org:9876"
INTERFACES = ("public", "internal", "admin")
EMPTY = Registered(regions=frozenset({"One", "Two"}), roles=frozenset({"member"}))
OCTAVIA = Service(id="o", name="octavia", description="OpenStack Octavia")
THEIRS = tuple(Endpoint(id=f"o-{x}", service_id="o", interface=x, url=OLD, region_id="One") for x in INTERFACES)


def wish(url: str = URL, region: str = "One", name: str = "frontinus") -> Wish:
    return Wish(region=region, name=name, urls=dict.fromkeys(INTERFACES, url))


def after(there: Registered, step: Step) -> Registered:
    """What a Keystone does with one step."""
    services, endpoints, roles = list(there.services), list(there.endpoints), set(there.roles)
    match step:
        case catalogue.MakeRole(name=name):
            assert name not in roles
            roles.add(name)
        case catalogue.MakeService(name=name):
            made = Service(id=f"s{len(services)}", name=name, description=catalogue.DESCRIPTION)
            services.append(made)
        case catalogue.ChangeService(id=id_, name=name):
            services = [msgspec.structs.replace(x, name=name, enabled=True) if x.id == id_ else x for x in services]
        case catalogue.MakeEndpoint(service_id=service_id, interface=interface, region=region, url=url):
            if service_id:
                made_id = f"e{len(endpoints)}-{service_id}-{interface}"
                endpoints.append(
                    Endpoint(id=made_id, service_id=service_id, interface=interface, url=url, region_id=region)
                )
        case catalogue.ChangeEndpoint(id=id_, url=url):
            endpoints = [msgspec.structs.replace(x, url=url, enabled=True) if x.id == id_ else x for x in endpoints]
        case catalogue.SwitchOff(id=id_):
            endpoints = [msgspec.structs.replace(x, enabled=False) if x.id == id_ else x for x in endpoints]
        case catalogue.RemoveEndpoint(id=id_):
            endpoints = [x for x in endpoints if x.id != id_]
        case catalogue.RemoveService(id=id_):
            services = [x for x in services if x.id != id_]
    return Registered(
        services=tuple(services), endpoints=tuple(endpoints), roles=frozenset(roles), regions=there.regions
    )


def registered(there: Registered, wanted: Wish | None = None, *, replace: bool = False) -> Registered:
    wanted = wanted or wish()
    for _ in range(3):
        for step in catalogue.registration(there, wanted, replace=replace):
            there = after(there, step)
    assert catalogue.registration(there, wanted, replace=replace) == (), "it does not come to an end"
    return there


def found_by_clients(there: Registered, region: str = "One") -> set[tuple[str, str]]:
    enabled = {x.id for x in there.services if x.enabled}
    return {
        (x.interface, x.url) for x in there.endpoints if x.enabled and x.service_id in enabled and x.region_id == region
    }


EVERYWHERE = {(x, URL) for x in INTERFACES}


@pytest.mark.parametrize(
    "there",
    [
        pytest.param(EMPTY, id="nothing is there"),
        pytest.param(registered(EMPTY), id="all is there"),
        pytest.param(registered(EMPTY, wish(OLD)), id="with another URL"),
        pytest.param(registered(EMPTY, wish(name="octavia")), id="with another name"),
        pytest.param(registered(EMPTY, wish(region="Two")), id="in another region"),
        pytest.param(
            msgspec.structs.replace(
                registered(EMPTY),
                endpoints=tuple(msgspec.structs.replace(x, enabled=False) for x in registered(EMPTY).endpoints),
            ),
            id="switched off",
        ),
        pytest.param(
            msgspec.structs.replace(
                registered(EMPTY),
                services=(
                    *registered(EMPTY).services,
                    Service(id="a", name="frontinus", description=catalogue.DESCRIPTION),
                ),
            ),
            id="two made the service at once",
        ),
        pytest.param(
            msgspec.structs.replace(
                registered(EMPTY),
                endpoints=(
                    *registered(EMPTY).endpoints,
                    Endpoint(id="x", service_id="s0", interface="public", url=OLD, region_id="One"),
                ),
            ),
            id="an endpoint too many",
        ),
    ],
)
def test_whatever_is_there_clients_find_just_us_afterwards(there: Registered) -> None:
    assert found_by_clients(registered(there)) == EVERYWHERE
    assert set(ROLES) <= registered(there).roles


def test_it_may_be_broken_off_after_any_step() -> None:
    there, done = EMPTY, 0
    while steps := catalogue.registration(there, wish(), replace=False):
        there, done = after(there, steps[0]), done + 1
        assert found_by_clients(registered(there)) == EVERYWHERE, f"after {done} steps"
    assert done == len(ROLES) + 1 + len(INTERFACES)


def test_another_region_keeps_what_it_has() -> None:
    both = registered(registered(EMPTY), wish(OLD, "Two"))
    assert (found_by_clients(both), found_by_clients(both, "Two")) == (EVERYWHERE, {(x, OLD) for x in INTERFACES})
    assert len(both.services) == 1


def test_anothers_service_is_refused_and_named() -> None:
    there = msgspec.structs.replace(EMPTY, services=(OCTAVIA,), endpoints=THEIRS)
    with pytest.raises(Conflict, match=f"public {OLD} of service octavia.*--replace"):
        catalogue.registration(there, wish(), replace=False)


@pytest.mark.parametrize(
    "there",
    [
        pytest.param(
            msgspec.structs.replace(
                EMPTY,
                services=(OCTAVIA,),
                endpoints=tuple(msgspec.structs.replace(x, enabled=False) for x in THEIRS),
            ),
            id="switched off already",
        ),
        pytest.param(
            msgspec.structs.replace(
                EMPTY, services=(msgspec.structs.replace(OCTAVIA, enabled=False),), endpoints=THEIRS
            ),
            id="its service is switched off",
        ),
        pytest.param(
            msgspec.structs.replace(
                EMPTY,
                services=(OCTAVIA,),
                endpoints=tuple(msgspec.structs.replace(x, region_id="Two") for x in THEIRS),
            ),
            id="in another region",
        ),
    ],
)
def test_anothers_service_that_is_not_in_the_way_is_left_alone(there: Registered) -> None:
    done = registered(there)
    assert found_by_clients(done) == EVERYWHERE
    assert [x for x in done.endpoints if x.service_id == "o"] == list(there.endpoints)


def test_a_replaced_service_is_switched_off_last_and_is_otherwise_as_it_was() -> None:
    there = msgspec.structs.replace(EMPTY, services=(OCTAVIA,), endpoints=THEIRS)
    has_any = [True]
    while steps := catalogue.registration(there, wish(), replace=True):
        there = after(there, steps[0])
        has_any.append(bool(found_by_clients(there)))
    assert all(has_any), "for a while clients found nobody"
    assert found_by_clients(there) == EVERYWHERE
    assert OCTAVIA in there.services
    assert [msgspec.structs.replace(x, enabled=True) for x in there.endpoints if x.service_id == "o"] == list(THEIRS)


def test_withdrawal_takes_what_is_ours_of_one_region_and_the_service_with_the_last() -> None:
    there = msgspec.structs.replace(EMPTY, services=(OCTAVIA,), endpoints=THEIRS)
    there = registered(registered(there, replace=True), wish(region="Two"))
    for region, left in (("One", 2), ("Two", 1)):
        for step in catalogue.withdrawal(there, region):
            there = after(there, step)
        assert catalogue.withdrawal(there, region) == ()
        assert (len(there.services), found_by_clients(there, region)) == (left, set())
    assert (there.services, len(there.endpoints)) == ((OCTAVIA,), 3)
    assert set(ROLES) <= there.roles


@pytest.mark.parametrize(
    "field, url",
    [
        pytest.param("--url", "lb.example.org:9876", id="without a scheme"),
        pytest.param("--url", "ftp://lb.example.org", id="of another scheme"),
        pytest.param("--url", "http://", id="without a host"),
        pytest.param("--url", "http://lb:0", id="port 0"),
        pytest.param("--url", "http://lb:99999", id="no port"),
        pytest.param("--url", "http://admin:secret@lb:9876", id="with a password"),
        pytest.param("--url", "http://lb:9876/v2.0", id="with a version"),
        pytest.param("--url", "http://lb:9876/?x=1", id="with a question"),
        pytest.param("--url", "", id="empty"),
    ],
)
def test_urls_that_clients_could_not_use(field: str, url: str) -> None:
    with pytest.raises(Invalid) as refused:
        catalogue.registration(EMPTY, wish(url), replace=False)
    assert refused.value.field == field
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("region", ["", "Three"])
def test_a_region_that_there_is_not(region: str) -> None:
    with pytest.raises(Invalid, match="One, Two"):
        catalogue.registration(EMPTY, wish(region=region), replace=False)
    with pytest.raises(Invalid, match="One, Two"):
        catalogue.withdrawal(EMPTY, region)


def test_every_step_is_told_in_words() -> None:
    steps = [
        *catalogue.registration(EMPTY, wish(), replace=False),
        *catalogue.registration(registered(EMPTY, wish(OLD, name="x")), wish(), replace=False),
        *catalogue.registration(
            msgspec.structs.replace(EMPTY, services=(OCTAVIA,), endpoints=THEIRS), wish(), replace=True
        ),
        *catalogue.withdrawal(registered(EMPTY), "One"),
    ]
    assert {type(x) for x in steps} == set(catalogue.Step.__args__)
    assert all(x.told for x in steps)


def test_what_was_done_before_a_step_failed_is_told() -> None:
    """Above all how another's endpoint that was switched off is switched on again."""
    off = tuple(SwitchOff(id=x, service="octavia", interface="public", url=OLD) for x in ("one", "two"))
    carried: list[Step] = []

    class Keystone(_Keystone):
        def __init__(self) -> None:
            """Asks nobody."""

        def region(self) -> str:
            return "One"

        def look(self) -> Registered:
            return EMPTY

        def carry_out(self, step: Step) -> bool:
            if carried:
                raise Retry("keystone cannot be asked", after=1)
            carried.append(step)
            return True

    done: list[Step] = []
    with pytest.raises(Retry):
        _carry_out(Keystone(), lambda there, region: off, done, dry_run=False, as_json=True)
    assert done == [off[0]]

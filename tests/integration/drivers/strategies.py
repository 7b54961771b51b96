"""Trees of every kind that the API accepts for this driver, and strings that are as awkward as they can be."""

from __future__ import annotations

from hypothesis import strategies as st
from msgspec.structs import replace

from frontinus.drivers.amphora.haproxy.render import CAPABILITIES
from frontinus.model.capabilities import Capabilities
from frontinus.model.compatibility import (
    HEALTH_MONITOR_TYPES_OF_POOL,
    MAX_TIMEOUT_MS,
    POOL_PROTOCOLS_OF_LISTENER,
    TLS_LISTENERS,
)
from frontinus.model.enums import HealthMonitorType, HttpMethod
from frontinus.model.ids import MemberId
from frontinus.model.tree import HealthMonitor, Listener, LoadBalancerTree, Member, Pool

from tests.unit.drivers.trees import a_listener, a_load_balancer, a_member, a_monitor, a_pool, a_tree

_ADDRESSES = st.ip_addresses().map(str)
_PORTS = st.integers(1, 65535)
_TIMEOUTS = st.sampled_from([0, 1, 50_000, MAX_TIMEOUT_MS]) | st.integers(0, MAX_TIMEOUT_MS)
_CODES = st.integers(100, 999).map(str)
_EXPECTED = st.one_of(
    _CODES,
    st.lists(_CODES, min_size=2, max_size=12).map(", ".join),
    st.tuples(st.integers(100, 999), st.integers(100, 999)).map(lambda pair: f"{min(pair)}-{max(pair)}"),
)
_PATHS = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E) | st.sampled_from("'\"\\$#%&;{}"), max_size=200
).map(lambda rest: f"/{rest}".replace("//", "/"))
_DOMAINS = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9-]{0,20}[A-Za-z0-9])?(\.[a-z]{2,5}){0,3}", fullmatch=True)


def words() -> st.SearchStrategy[str]:
    """Words that a configuration can hold: everything but control characters, as bytes that HAProxy hands back."""
    awkward = st.sampled_from("'\"\\ $#%{}[]()|;,\u00fc\u4e2d\U0001f600")
    return st.text(awkward | st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40)


@st.composite
def members(draw: st.DrawFn, pool: int, index: int) -> Member:
    return a_member(
        1000 * pool + index,
        pool=pool,
        address=draw(_ADDRESSES),
        port=draw(_PORTS),
        weight=draw(st.none() | st.integers(0, 256)),
        backup=draw(st.booleans()),
        admin_state_up=draw(st.booleans()),
        monitor_address=draw(st.none() | _ADDRESSES),
        monitor_port=draw(st.none() | _PORTS),
    )


@st.composite
def monitors(draw: st.DrawFn, pool: int, kinds: frozenset[HealthMonitorType]) -> HealthMonitor:
    kind = draw(st.sampled_from(sorted(kinds)))
    http = kind is HealthMonitorType.HTTP
    version = draw(st.sampled_from([None, 1.0, 1.1]))
    timeout = draw(st.sampled_from([0, 2**31 - 1]) | st.integers(0, 100))
    return a_monitor(
        100 + pool,
        pool=pool,
        type=kind,
        delay=draw(st.sampled_from([timeout, 2**40]) | st.integers(timeout, 2**31)),
        timeout=timeout,
        max_retries=draw(st.integers(1, 10)),
        max_retries_down=draw(st.integers(1, 10)),
        http_method=draw(st.sampled_from(list(HttpMethod))) if http else None,
        url_path=draw(_PATHS) if http else None,
        expected_codes=draw(_EXPECTED) if http else None,
        http_version=version,
        domain_name=draw(st.none() | _DOMAINS) if version == 1.1 else None,
        admin_state_up=draw(st.booleans()),
    )


@st.composite
def listeners(draw: st.DrawFn, index: int, pools: list[Pool], capabilities: Capabilities) -> Listener:
    protocol = draw(st.sampled_from(sorted(capabilities.listener_protocols - TLS_LISTENERS)))
    fitting = [pool for pool in pools if pool.protocol in POOL_PROTOCOLS_OF_LISTENER[protocol]]
    default = draw(st.none() | st.sampled_from(fitting)) if fitting else None
    listener = a_listener(
        index,
        protocol,
        draw(_PORTS),
        None,
        connection_limit=draw(st.sampled_from([None, -1, 0, 1, 2**31 - 1, 2**40])),
        timeout_client_data=draw(_TIMEOUTS),
        timeout_member_connect=draw(_TIMEOUTS),
        timeout_member_data=draw(_TIMEOUTS),
        timeout_tcp_inspect=draw(_TIMEOUTS),
        admin_state_up=draw(st.booleans()),
    )
    return replace(listener, default_pool_id=None if default is None else default.id)


@st.composite
def trees(draw: st.DrawFn, capabilities: Capabilities = CAPABILITIES) -> LoadBalancerTree:
    pools = [
        a_pool(
            20 + index,
            draw(st.sampled_from(sorted(capabilities.pool_protocols))),
            draw(st.sampled_from(sorted(capabilities.lb_algorithms))),
            admin_state_up=draw(st.integers(0, 4)) > 0,
        )
        for index in range(draw(st.integers(0, 3)))
    ]
    rows: list[Member] = []
    checks: list[HealthMonitor] = []
    for number, pool in enumerate(pools):
        rows += [draw(members(20 + number, index)) for index in range(draw(st.integers(0, 4)))]
        kinds = capabilities.health_monitor_types & HEALTH_MONITOR_TYPES_OF_POOL[pool.protocol]
        if draw(st.booleans()) and kinds:
            checks.append(draw(monitors(20 + number, kinds)))
    fronts = [draw(listeners(10 + index, pools, capabilities)) for index in range(draw(st.integers(0, 3)))]
    return a_tree(
        a_load_balancer(draw(_ADDRESSES)),
        listeners={front.protocol_port: front for front in fronts}.values(),
        pools=pools,
        members=rows,
        monitors=checks,
    )


@st.composite
def member_sets(draw: st.DrawFn, address: str, port: int) -> list[Member]:
    """Rows of up to six members, all answered by one real server; a row's fixed fields depend on its id alone, as they
    cannot be changed over the API."""
    chosen = draw(st.sets(st.integers(1, 6), max_size=6))
    return [
        replace(
            a_member(30 + index, address=address, port=port, backup=index == 6),
            id=MemberId(a_member(30 + index).id),
            weight=draw(st.sampled_from([0, 1, 3, 256])),
            admin_state_up=draw(st.booleans()),
            monitor_port=draw(st.none() | st.just(port)),
        )
        for index in sorted(chosen)
    ]

"""All groups of cases."""

from __future__ import annotations

from tests.acceptance.traffic.datagram_cases import DATAGRAMS
from tests.acceptance.traffic.l7 import L7
from tests.acceptance.traffic.listeners import LISTENERS
from tests.acceptance.traffic.load_balancers import LOAD_BALANCERS
from tests.acceptance.traffic.monitored import MONITORS
from tests.acceptance.traffic.pairs import PAIRS
from tests.acceptance.traffic.pool_tls import POOL_TLS
from tests.acceptance.traffic.pools import POOLS
from tests.acceptance.traffic.tls import TLS

GROUPS = (LOAD_BALANCERS, LISTENERS, POOLS, MONITORS, L7, TLS, POOL_TLS, DATAGRAMS, PAIRS)

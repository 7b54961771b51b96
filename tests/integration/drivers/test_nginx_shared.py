"""Traffic tests of the haproxy driver, run on nginx where the capabilities of both overlap."""

from __future__ import annotations

import pytest

from frontinus.drivers.amphora.nginx.driver import NginxDriver

from tests.integration.drivers.test_requests import (  # noqa: F401
    test_a_connection_is_kept_between_requests_for_as_long_as_a_client_may_be_silent,
    test_half_a_request_does_not_hold_a_connection,
    test_nobody_gets_past_policies_by_another_http,
)
from tests.integration.drivers.test_traffic import (  # noqa: F401 - they run here once more
    Site,
    site,
    test_a_disabled_member_gets_nothing,
    test_a_listener_without_members_says_503,
    test_a_member_that_refuses_costs_no_request,
    test_bytes_pass_untouched,
    test_draining_lets_connections_end,
    test_least_connections_avoids_the_busy,
    test_round_robin_takes_turns,
    test_source_ip_keeps_a_client_at_its_member,
    test_source_ip_moves_only_the_clients_of_a_member_that_goes,
    test_timeout_client_data_ends_an_idle_connection,
    test_two_listeners_share_a_pool,
    test_weights,
    test_what_is_disabled_does_not_listen,
)

pytestmark = pytest.mark.long


@pytest.fixture
def driver_class() -> type[NginxDriver]:
    return NginxDriver

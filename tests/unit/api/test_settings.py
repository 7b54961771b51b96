"""The API does not listen to the world without being told to."""

from __future__ import annotations

import pytest

from frontinus.api.settings import ApiSettings, Authentication, check_bind
from frontinus.model.errors import Invalid


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_loopback_needs_no_word(host: str) -> None:
    check_bind(ApiSettings(bind_host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "balancer.example"])
def test_beyond_loopback_needs_the_operators_word(host: str) -> None:
    with pytest.raises(Invalid, match="insecure_bind") as refusal:
        check_bind(ApiSettings(bind_host=host))
    assert refusal.value.field == "api.bind_host"
    check_bind(ApiSettings(bind_host=host, insecure_bind=True))


@pytest.mark.parametrize("auth", [Authentication.TOKEN, Authentication.KEYSTONE])
def test_who_asks_for_tokens_may_listen_anywhere(auth: Authentication) -> None:
    check_bind(ApiSettings(bind_host="0.0.0.0", auth=auth))

"""The way of finding out who calls that the settings name."""

from __future__ import annotations

from frontinus.api.identity.interface import Authenticator
from frontinus.api.identity.keystone import KeystoneAuthentication
from frontinus.api.identity.none import NoAuthentication
from frontinus.api.identity.tokens import TokenAuthentication
from frontinus.api.ports import Clock
from frontinus.api.settings import ApiSettings, Authentication


def build_authenticator(settings: ApiSettings, clock: Clock) -> Authenticator:
    """Asks nobody yet. Raises Invalid naming the setting with which nobody could call."""
    match settings.auth:
        case Authentication.NONE:
            return NoAuthentication(settings.default_project_id)
        case Authentication.TOKEN:
            return TokenAuthentication(settings.tokens)
        case Authentication.KEYSTONE:
            return KeystoneAuthentication(settings.keystone, clock)

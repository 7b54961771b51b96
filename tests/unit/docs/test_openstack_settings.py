"""Each driver for OpenStack has a page below docs/reference, and each of its settings stands there."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from frontinus.drivers.compute.nova.settings import NovaSettings
from frontinus.drivers.network.neutron.driver import NeutronSettings
from frontinus.drivers.openstack.settings import OpenStackSettings
from frontinus.drivers.secret.barbican.driver import BarbicanSettings

PAGES = Path(__file__).parents[3] / "docs" / "reference"


@pytest.mark.parametrize(
    "page,settings",
    [
        ("nova.md", NovaSettings),
        ("neutron.md", NeutronSettings),
        ("neutron.md", OpenStackSettings),
        ("barbican.md", BarbicanSettings),
    ],
)
def test_every_setting_is_told(page: str, settings: Any) -> None:
    told = set(re.findall(r"`(\w+)`|^    (\w+) = ", (PAGES / page).read_text(), re.MULTILINE))
    assert {x.name for x in fields(settings)} - {"openstack"} <= {name for names in told for name in names}

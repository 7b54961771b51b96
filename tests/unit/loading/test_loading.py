"""Whose drivers load: ours always; those of others when their interface is stable or the operator said so, and when they
were written for just the interface that we have."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from frontinus.drivers.amphora.haproxy.driver import HaproxyDriver
from frontinus.drivers.amphora.noop import NoopAmphoraDriver
from frontinus.loading import DRIVER_KINDS, DriverKind, find, load, load_from, offers
from frontinus.main import check
from frontinus.model.errors import Invalid
from frontinus.settings import load as load_settings

AMPHORA = DRIVER_KINDS["amphora"]
GOOD = """
from frontinus.drivers.amphora.noop import NoopAmphoraDriver

class Mine(NoopAmphoraDriver):
    name = "mine"
    interface = 1
"""

Install = Callable[..., str]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes a distribution that offers an amphora driver, as pip would lay it down; gives its module's name."""
    count = 0

    def make(source: str, *, name: str = "mine", distribution: str = "acme-balancer", kind: str = "amphora") -> str:
        nonlocal count
        count += 1
        site = tmp_path / str(count)
        module = f"acme_{tmp_path.name.replace('-', '_')}_{count}"
        info = site / f"{distribution.replace('-', '_')}-3.1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 3.1\n")
        (info / "entry_points.txt").write_text(f"[frontinus.{kind}_drivers]\n{name} = {module}:Mine\n")
        (site / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(site)
        return module

    return make


def stable(kind: DriverKind) -> DriverKind:
    return DriverKind(
        kind.name,
        kind.interface,
        SimpleNamespace(INTERFACE_VERSION=kind.version, INTERFACE_MATURITY="stable"),  # type: ignore[arg-type]
    )


def test_ours_load_whatever_the_maturity() -> None:
    assert load(AMPHORA, "haproxy", ()) is HaproxyDriver


def test_another_distributions_driver_needs_the_operators_word_and_is_not_imported_without_it(
    install: Install,
) -> None:
    module = install(GOOD)
    with pytest.raises(Invalid) as refused:
        load(AMPHORA, "mine", ())
    assert refused.value.field == "drivers.amphora"
    for told in ("acme-balancer", "experimental", 'drivers.allow_experimental = ["mine"]'):
        assert told in refused.value.reason
    assert module not in sys.modules


def test_it_loads_by_the_operators_word(install: Install) -> None:
    install(GOOD)
    assert load(AMPHORA, "mine", ("mine",)).__name__ == "Mine"


def test_it_loads_without_a_word_when_the_interface_is_stable(install: Install) -> None:
    install(GOOD)
    assert load(stable(AMPHORA), "mine", ()).__name__ == "Mine"


@pytest.mark.parametrize(
    "source, told",
    [
        pytest.param(GOOD.replace("interface = 1", "interface = 2"), "written for version 2", id="a later interface"),
        pytest.param(
            GOOD.replace("interface = 1", "interface = 0"), "written for version 0", id="an earlier interface"
        ),
        pytest.param(GOOD.replace("    interface = 1\n", ""), "does not say for which version", id="no interface said"),
        pytest.param("Mine = 7", "derives from AmphoraDriver", id="not a class"),
        pytest.param("class Mine: interface = 1", "derives from AmphoraDriver", id="another class"),
        pytest.param("import no_such_library", "no_such_library", id="a library that is missing"),
        pytest.param("raise RuntimeError('licence expired')", "licence expired", id="an import that fails"),
        pytest.param("Yours = 1", "cannot be imported", id="no such name in the module"),
        pytest.param(
            "from frontinus.drivers.amphora.interface import AmphoraDriver\n"
            "class Mine(AmphoraDriver):\n    interface = 1\n    name = 'mine'\n",
            "apply, boot_files, decode, info, preview, render, retire",
            id="methods that are missing",
        ),
    ],
)
@pytest.mark.parametrize("maturity", ["experimental", "stable"])
def test_what_is_no_driver_for_this_interface_is_refused_by_the_settings_name(
    install: Install, source: str, told: str, maturity: str
) -> None:
    install(source)
    kind = stable(AMPHORA) if maturity == "stable" else AMPHORA
    with pytest.raises(Invalid) as refused:
        load(kind, "mine", ("mine",))
    assert refused.value.field == "drivers.amphora"
    assert told in refused.value.reason


def test_nobody_takes_the_name_of_another(install: Install) -> None:
    install(GOOD, name="haproxy")
    with pytest.raises(Invalid) as refused:
        find(AMPHORA, "haproxy")
    assert "several distributions have a 'haproxy': acme-balancer" in refused.value.reason


def test_a_distribution_that_is_found_twice_counts_once(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(GOOD)
    monkeypatch.syspath_prepend(sys.path[0])
    assert [x.distribution_version for x in offers(AMPHORA) if x.name == "mine"] == ["3.1"]


def test_unknown_names_list_what_is_installed() -> None:
    with pytest.raises(Invalid) as refused:
        find(AMPHORA, "cisterna")
    assert "haproxy, nginx, noop" in refused.value.reason


@pytest.mark.parametrize(
    "drivers, field, told",
    [
        pytest.param({"amphora": "mine"}, "drivers.amphora", "experimental", id="not allowed"),
        pytest.param({"allow_experimental": ["mien"]}, "drivers.allow_experimental", "'mien'", id="misspelled"),
        pytest.param({"allow_experimental": ["haproxy"]}, "drivers.allow_experimental", "'haproxy'", id="ours"),
        pytest.param({"allow_experimental": "mine"}, "drivers.allow_experimental", "must be a list", id="no list"),
        pytest.param({"amphora": "mine", "allow_experimental": ["mine"]}, None, "", id="allowed"),
    ],
)
def test_the_settings_are_judged_before_anything_starts(
    install: Install, tmp_path: Path, drivers: dict[str, object], field: str | None, told: str
) -> None:
    install(GOOD)

    def judge() -> None:
        check(load_settings(None, {"state_dir": str(tmp_path), "drivers": drivers}))

    if field is None:
        judge()
        return
    with pytest.raises(Invalid) as refused:
        judge()
    assert refused.value.field == field
    assert told in refused.value.reason


@pytest.mark.parametrize(
    "compute, network, refused",
    [
        pytest.param("nova", "neutron", None, id="OpenStack's"),
        pytest.param("netns", "bridge", None, id="this machine's"),
        pytest.param("process", "loopback", None, id="no ports"),
        pytest.param("nova", "bridge", "ports of 'neutron'", id="bridges for Nova"),
        pytest.param("qemu", "neutron", "ports of 'bridge'", id="Neutron's ports for QEMU"),
        pytest.param("nova", "loopback", "makes no ports", id="nothing for Nova"),
    ],
)
def test_compute_and_network_must_agree(tmp_path: Path, compute: str, network: str, refused: str | None) -> None:
    drivers = {"compute": compute, "network": network}
    options = {"nova": {"flavor": "small"}, "qemu": {"image": str(tmp_path)}}
    settings = load_settings(None, {"state_dir": str(tmp_path), "drivers": drivers, "driver_options": options})
    if refused is None:
        check(settings)
        return
    with pytest.raises(Invalid, match=refused) as error:
        check(settings)
    assert error.value.field == "drivers.network"


@pytest.mark.parametrize("kind", ["compute", "network", "secret"])
def test_every_kind_has_the_gate(install: Install, kind: str) -> None:
    install("raise AssertionError('imported')", kind=kind)
    with pytest.raises(Invalid) as refused:
        load(DRIVER_KINDS[kind], "mine", ())
    assert refused.value.field == f"drivers.{kind}"


@pytest.mark.parametrize(
    "reference, told",
    [
        pytest.param("cisterna", "neither the name", id="no colon"),
        pytest.param("no_such_module:Class", "no_such_module", id="no module"),
        pytest.param("json:Nothing", "cannot be imported", id="no class"),
        pytest.param("json:JSONDecoder", "derives from none", id="no driver"),
    ],
)
def test_a_reference_that_leads_to_no_driver(reference: str, told: str) -> None:
    with pytest.raises(Invalid) as refused:
        load_from(reference)
    assert told in str(refused.value)


def test_a_reference_tells_the_kind() -> None:
    assert load_from("frontinus.drivers.amphora.noop:NoopAmphoraDriver") == (AMPHORA, NoopAmphoraDriver)

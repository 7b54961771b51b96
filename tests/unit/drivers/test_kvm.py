"""What is said of a machine whose guests would be emulated."""

from __future__ import annotations

from pathlib import Path

import pytest

from frontinus.drivers.compute.qemu.kvm import kvm_lacks


@pytest.mark.parametrize(
    "flags,device,expected",
    [
        pytest.param("flags\t\t: fpu vmx sse", "kvm", None, id="Intel"),
        pytest.param("flags\t\t: fpu svm sse", "kvm", None, id="AMD"),
        pytest.param("flags\t\t: fpu sse", "kvm", "the processor shows no virtualisation", id="a device, and no virtualisation"),
        pytest.param("Features\t: fp asimd", "kvm", "the processor shows no virtualisation", id="another architecture"),
        pytest.param("flags\t\t: vmx", "none", "there is no", id="no device"),
        pytest.param("flags\t\t: vmx", "", "cannot be opened", id="a device that cannot be opened"),
    ],
)  # fmt: skip
def test_why_there_is_no_kvm(flags: str, device: str, expected: str | None, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{flags}\n")
    (tmp_path / "kvm").touch()
    found = kvm_lacks(tmp_path / device, tmp_path / "cpuinfo")
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert found.reason.startswith(expected) or expected in found.reason
        assert found.advice

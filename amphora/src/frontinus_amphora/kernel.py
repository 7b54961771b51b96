"""Settings of the kernel that the agent runs on, by their path below /proc/sys.

Next: interfaces.py, lvs_machine.py, room.py and vrrp.py, which say which."""

from collections.abc import Mapping

from frontinus_amphora.log import log


def put(name: str, value: str) -> None:
    """Unless it is so: some take a while, and who may not write may find it as it should be. Raises OSError when the kernel has not this one, or does not let us."""
    path = f"/proc/sys/{name}"
    with open(path, encoding="ascii") as setting:
        if setting.read().split() == value.split():
            return
    with open(path, "w", encoding="ascii") as setting:
        setting.write(value)


def prefer(values: Mapping[str, str]) -> None:
    """Those that the kernel lets us; others are left, and logged."""
    for name, value in values.items():
        try:
            put(name, value)
        except OSError as error:
            log("kernel setting not changed", setting=name, error=str(error))

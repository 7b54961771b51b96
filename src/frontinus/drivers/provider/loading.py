"""What must be so before anything of a provider is imported: its settings read, and our sockets the ones that it finds.

In the process of a driver and in that of an agent alike."""

from __future__ import annotations

from collections.abc import Sequence

from octavia_lib.api.drivers import driver_lib
from oslo_config import cfg

from frontinus.model.errors import Invalid


def prepare(sockets: tuple[str, str, str], config_files: Sequence[str]) -> None:
    """Raises Invalid for files that cannot be read."""
    # As in Octavia, the files come first: drivers read what they register while they are imported or made. Also where there are
    # none, lest it is read what an Octavia left on this machine.
    try:
        cfg.CONF([], project="octavia", default_config_files=list(config_files), default_config_dirs=[])
    except cfg.Error as error:
        raise Invalid("provider.driver_config_files", str(error)) from error
    # A driver that names no socket gets ours; the constructor's defaults are the only place where it can be told.
    driver_lib.DriverLibrary.__init__.__defaults__ = sockets

"""What nginx itself says of rendered files, in a directory laid out as the agent lays it out."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from frontinus.drivers.amphora.agent.files import TEXTS_BESIDE, path_of
from frontinus.drivers.amphora.interface import RenderedFile
from frontinus.model.tree import LoadBalancerTree
from frontinus_amphora.nginx_service import Program

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
PROGRAM = Program(NGINX)


def check_nginx(directory: Path, tree: LoadBalancerTree, files: tuple[RenderedFile, ...]) -> str:
    """The complaints; empty when the configuration is fine."""
    for file in files:
        path = directory / path_of(file.name, tree.id, private=file.private)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
    place = directory / tree.id / "nginx"
    place.mkdir(parents=True, exist_ok=True)
    said = ""
    for name in (file.name for file in files if file.name in TEXTS_BESIDE):
        # Where the agent has it, so that relative paths lead to the other files.
        configuration = directory / name
        shutil.copy(directory / path_of(name, tree.id, private=False), configuration)
        checked = subprocess.run(
            [*PROGRAM.arguments(str(place), str(configuration)), "-t"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        said += checked.stderr if checked.returncode or "[warn]" in checked.stderr else ""
    return said

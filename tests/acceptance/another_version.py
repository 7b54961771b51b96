"""`frontinus`, with a haproxy driver of another version: what an operator has who installed the next release beside this one.

    python another_version.py VERSION KIND command …

KIND says in what its templates differ: `same` in nothing, `tuned` in one line of every configuration, `bad` in that no member
can be reached (as a release whose template has a slip), `broken` in a word that no haproxy knows."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping

from frontinus.cli.main import main
from frontinus.drivers.amphora.haproxy.driver import HaproxyDriver
from frontinus.drivers.amphora.haproxy.render import rendered
from frontinus.drivers.amphora.interface import Rendered
from frontinus.model.certificates import NO_SECRETS, Secrets
from frontinus.model.tree import Amphora, LoadBalancerTree

DIFFERENCES: Mapping[str, Callable[[str], str]] = {
    "same": lambda text: text,
    "tuned": lambda text: text.replace("    retries 3\n", "    retries 4\n"),
    "bad": lambda text: re.sub(r"(    server \S+ [0-9a-f.:]+:)\d+ ", r"\g<1>9 ", text),
    "broken": lambda text: text.replace("    retries 3\n", "    retires 3\n"),
}


def install(version: str, kind: str) -> None:
    """From now on this process has that driver."""
    differs, render = DIFFERENCES[kind], HaproxyDriver.render

    def render_otherwise(
        self: HaproxyDriver, tree: LoadBalancerTree, amphora: Amphora, secrets: Secrets = NO_SECRETS
    ) -> Rendered:
        found = render(self, tree, amphora, secrets)
        return rendered(differs(found.text), list(found.files))

    HaproxyDriver.version = version
    HaproxyDriver.render = render_otherwise  # type: ignore[method-assign]


if __name__ == "__main__":
    install(sys.argv[1], sys.argv[2])
    main(sys.argv[3:])

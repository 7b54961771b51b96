"""What is on disk of one load balancer: its text, the files that belong to it, the last of both that is known to run, and
what must be remembered when the agent ends (`Record`).

Nothing of processes is known here, and nobody is asked anything: load_balancer.py decides what is written, and when.
"""

import json
import os

from frontinus_amphora import companions, files, haproxy_text
from frontinus_amphora.companions import Companions, Manifest
from frontinus_amphora.errors import Invalid
from frontinus_amphora.nginx_pair import PushedPair, read_pair
from frontinus_amphora.service import Places
from frontinus_amphora.values import Change, Record, load_record
from frontinus_amphora.vrrp import CONFIGURATION


class OnDisk:
    """Guarded by its load balancer's lock; what only reads is called without it too."""

    def __init__(self, places: Places, own_files: Companions) -> None:
        self._places = places
        self.companions = own_files
        self.record = load_record(places.record)
        self._socket_of: tuple[tuple[int, int], str] | None = None

    def write(self, change: Change) -> None:
        """Files first: until the text is there too, the manifest does not fit it, and nothing is known by any digest."""
        self.companions.swap_in(Manifest(haproxy_text.digest(change.config), change.companions))
        files.write_atomically(self._places.config, change.config.encode(), durable=True)

    def keep_last(self) -> None:
        """Keep the file that is known to run, until the next one is."""
        content = files.read(self._places.config)
        if content is not None and self.is_proven():
            files.write_atomically(self._places.last_config, content)
            self.companions.keep_last()

    def is_proven(self) -> bool:
        """True when haproxy was made from the file on disk, whatever commands it was given since."""
        return self.record.unloaded in ("", "commands")

    def stats_socket(self) -> str:
        """Of the text on disk, which may be long: it is read anew only when the file is another."""
        try:
            status = os.stat(self._places.config)
        except FileNotFoundError:
            return self._places.stats_socket
        version = (status.st_ino, status.st_mtime_ns)
        cached = self._socket_of
        if cached is None or cached[0] != version:
            found = haproxy_text.stats_socket(self.text() or "") or self._places.stats_socket
            self._socket_of = cached = (version, found)
        return cached[1]

    def digest(self, text: str | None) -> str | None:
        """What is on disk is known by this; None when it is not whole, so that it must be pushed again."""
        manifest = self.companions.manifest()
        if text is None or manifest is None:
            return None if text is None else haproxy_text.digest(text)
        if manifest.config != haproxy_text.digest(text) or not self.companions.are_here(manifest):
            return None
        return companions.digest(text, manifest.companions)

    def is_whole(self) -> bool:
        """Whether all files are here that belong to the text."""
        manifest = self.companions.manifest()
        return manifest is None or self.companions.are_here(manifest)

    def pushed(self, new: bool = False) -> PushedPair:
        """What nginx shall run, by the files on disk, or by the `new` ones that are tried. Raises Invalid."""
        return read_pair(self.companions.public(new=new))

    def vrrp(self, new: bool = False) -> str | None:
        """What keepalived shall run, by the files on disk or by the `new` ones; None: nothing. Raises Invalid."""
        content = files.read(f"{self.companions.public(new=new)}/{CONFIGURATION}")
        try:
            return None if content is None else content.decode()
        except UnicodeDecodeError as error:
            raise Invalid("malformed body", f"{CONFIGURATION} is not UTF-8") from error

    def text(self) -> str | None:
        """None when there is none."""
        content = files.read(self._places.config)
        return None if content is None else content.decode("utf-8", "replace")

    def running_text(self) -> str | None:
        """What the running haproxy was made from, as far as is known."""
        last = None if self.is_proven() else files.read(self._places.last_config)
        return self.text() if last is None else last.decode("utf-8", "replace")

    def record_that(
        self, wanted: str | None = None, unloaded: str | None = None, removing: tuple[str, ...] | None = None
    ) -> None:
        """Remember this, and the rest as it was."""
        changed = Record(
            self.record.wanted if wanted is None else wanted,
            self.record.unloaded if unloaded is None else unloaded,
            self.record.removing if removing is None else removing,
        )
        if changed != self.record:
            files.write_atomically(self._places.record, json.dumps(changed._asdict()).encode())
            self.record = changed

"""The agent's parts, joined: load balancers, supervisor, heartbeat, settings that can change.

It holds what all requests share; requests.py asks it, main.py starts and stops it. No HTTP here.
"""

import os
import pwd
import threading

from frontinus_amphora import files, haproxy_text, ping
from frontinus_amphora.companions import Companions
from frontinus_amphora.errors import AgentError
from frontinus_amphora.facts import Haproxy
from frontinus_amphora.heartbeat import Heart
from frontinus_amphora.interfaces import Interfaces
from frontinus_amphora.keepalived_service import KeepalivedProgram
from frontinus_amphora.load_balancer import LoadBalancer
from frontinus_amphora.log import log
from frontinus_amphora.nginx_pair import NginxPair
from frontinus_amphora.nginx_service import Program
from frontinus_amphora.service import Places
from frontinus_amphora.settings import (
    UUID,
    BadSettings,
    Settings,
    keep_our_section,
    parse_settings,
    with_heartbeat_key,
)
from frontinus_amphora.statistics import Bookkeeper
from frontinus_amphora.supervisor import Supervisor
from frontinus_amphora.table_keeper import KeptHaproxy
from frontinus_amphora.values import Checker, Fences
from frontinus_amphora.vrrp import Vrrp

CERTIFICATES = "certs"
INTERFACES = "plugged_interfaces.json"


class Agent:
    """Guarded by `_lock`: the table of load balancers, the settings. Any thread may call."""

    def __init__(self, settings: Settings) -> None:
        files.make_directory(settings.base_path)
        files.make_directory(settings.base_cert_dir)
        self._lock = threading.Lock()
        self._settings = settings
        self._link_certificates()
        ping.install(settings.base_path)
        self._load_balancers: dict[str, LoadBalancer] = {}
        self._fences = Fences(f"{settings.base_path}/fences.json")
        self.haproxy = Haproxy(settings.haproxy_cmd)
        self.interfaces = Interfaces(f"{settings.base_path}/{INTERFACES}") if settings.network == "own" else None
        self._bookkeeper = Bookkeeper(f"{settings.base_path}/stats_counters.json")
        self.heart = Heart(lambda: self.settings, self.load_balancers, self._bookkeeper, lambda: self.vrrp)
        self.supervisor = Supervisor(lambda: [*self.load_balancers(), self.vrrp], self.heart.look)
        self.keepalived = KeepalivedProgram(settings.keepalived_cmd)
        self.vrrp = Vrrp(
            settings.base_path, self.keepalived, settings.reload_timeout, self.heart.poke, self.supervisor.wake
        )
        self._write_user_file()
        self.nginx = Program(settings.nginx_cmd, settings.haproxy_user if self._drops_root else "")

    @property
    def settings(self) -> Settings:
        return self._settings

    def start(self) -> None:
        """Adopt what runs, start what should run and does not, then watch and beat."""
        if self.interfaces is not None:
            try:
                self.interfaces.restore()
            except AgentError as error:  # the controller plugs again what it finds missing
                log("interfaces not restored", error=str(error))
        try:
            self.vrrp.resume()
        except OSError as error:
            log("keepalived not resumed", error=repr(error))
        for entry in sorted(os.listdir(self._settings.base_path)):
            if UUID.fullmatch(entry) and os.path.exists(f"{self._settings.base_path}/{entry}/haproxy.cfg"):
                try:
                    self.ensure(entry).resume()
                except (AgentError, OSError) as error:
                    log("load balancer not resumed", load_balancer_id=entry, error=repr(error))
        self.supervisor.start()
        self.heart.start()

    def stop(self) -> None:
        """End cleanly; every balancer goes on, and keepalived."""
        self.supervisor.stop()
        self.heart.stop()
        for load_balancer in self.load_balancers():
            load_balancer.let_go()
        self.vrrp.let_go()
        self._bookkeeper.save()

    def load_balancers(self) -> list[LoadBalancer]:
        with self._lock:
            return list(self._load_balancers.values())

    def find(self, load_balancer_id: str) -> LoadBalancer | None:
        with self._lock:
            return self._load_balancers.get(load_balancer_id.lower())

    def ensure(self, load_balancer_id: str) -> LoadBalancer:
        """The load balancer of this id, which appears now if it was not there."""
        load_balancer_id = load_balancer_id.lower()
        with self._lock:
            found = self._load_balancers.get(load_balancer_id)
            if found is None:
                places = Places.of(self._settings.base_path, load_balancer_id)
                files.make_directory(places.directory)
                own_peer = haproxy_text.peer_name(self._settings.amphora_id)
                service = KeptHaproxy(
                    places,
                    self.haproxy.arguments,
                    own_peer,
                    self._extra,
                    self._settings.haproxy_user if self._drops_root else "",
                    self._settings.reload_timeout,
                    self._settings.old_workers_memory,
                )
                checker = Checker((self._settings.haproxy_cmd, "-L", own_peer), self._extra)
                nginx = NginxPair(
                    load_balancer_id,
                    self._settings.base_path,
                    self.nginx,
                    self.keepalived,
                    self._settings.reload_timeout,
                    self._settings.old_workers_memory,
                    self._settings.hang_timeout,
                    self.heart.poke,
                    self.supervisor.wake,
                )
                found = LoadBalancer(
                    load_balancer_id,
                    places,
                    self._companions_of(places, load_balancer_id),
                    service,
                    nginx,
                    self.vrrp,
                    checker,
                    own_peer,
                    self._bookkeeper,
                    self.heart.poke,
                    self.supervisor.wake,
                    self._settings.hang_timeout,
                    self._fences.of(load_balancer_id),
                )
                self._load_balancers[load_balancer_id] = found
            return found

    def _companions_of(self, places: Places, load_balancer_id: str) -> Companions:
        private = f"{self._settings.base_cert_dir}/{load_balancer_id}"
        links = {"private": f"{CERTIFICATES}/{load_balancer_id}", "public": f"{load_balancer_id}/files"}
        return Companions(private, places.files, places.manifest, places.trial, links)

    def _link_certificates(self) -> None:
        """Configurations reach private files as certs/<load balancer>/<file>, relative to base_path, wherever they are.

        A directory of that name is of an agent that kept them on disk: what is in it was pushed, and will be again."""
        link, target = f"{self._settings.base_path}/{CERTIFICATES}", self._settings.base_cert_dir
        if link == target or (os.path.islink(link) and os.readlink(link) == target):
            return
        if os.path.islink(link):
            files.remove(link)
        else:
            files.remove_tree(link)
        os.symlink(target, link)

    def delete(self, load_balancer_id: str, fence: int = 0) -> None:
        """Take the load balancer away with all that belongs to it. Safe to repeat. Raises Fenced."""
        load_balancer_id = load_balancer_id.lower()
        found = self.find(load_balancer_id)
        if found is not None:
            found.delete(fence)
            with self._lock:
                self._load_balancers.pop(load_balancer_id, None)
            files.remove_tree(f"{self._settings.base_cert_dir}/{load_balancer_id}")

    def replace_settings(self, text: str) -> None:
        """Write the configuration file anew and adopt what may change while running. Raises BadSettings."""
        with self._lock:
            text = keep_our_section(text, (files.read(self._settings.path) or b"").decode("utf-8", "replace"))
            new = parse_settings(text, self._settings.path)
            if new.amphora_id != self._settings.amphora_id:
                raise BadSettings("[amphora_agent] amphora_id is another amphora's")
            files.write_atomically(new.path, text.encode())
            self._settings = self._settings._replace(
                controllers=new.controllers,
                heartbeat_interval=new.heartbeat_interval,
                heartbeat_key=new.heartbeat_key,
                heartbeat_format=new.heartbeat_format,
            )
        self.heart.poke()

    def replace_heartbeat_key(self, key: str) -> None:
        """Sign heartbeats with this key from now on, and after a restart. Raises BadSettings."""
        with self._lock:
            text = with_heartbeat_key((files.read(self._settings.path) or b"").decode("utf-8", "replace"), key)
        self.replace_settings(text)

    def reread_settings(self) -> None:
        """What SIGHUP asks for."""
        try:
            self.replace_settings((files.read(self._settings.path) or b"").decode("utf-8", "replace"))
        except (BadSettings, OSError) as error:
            log("configuration not read again", error=str(error))

    def _user_file(self) -> str:
        return f"{self._settings.base_path}/haproxy-default-user-group.conf"

    def _write_user_file(self) -> None:
        """An agent that is root lets haproxy drop to a user of its own, if the machine has it."""
        self._drops_root = False
        user = self._settings.haproxy_user
        if os.geteuid() == 0 and user:
            try:
                group_id = pwd.getpwnam(user).pw_gid
            except KeyError:
                return
            text = f"global\n    user {user}\n    gid {group_id}\n"
            if files.read(self._user_file()) != text.encode():
                files.write_atomically(self._user_file(), text.encode())
            self._let_in(group_id)
            self._drops_root = True

    def _let_in(self, group_id: int) -> None:
        """That user must get to the table keeper's socket. What is here is private by itself, and it cannot list it."""
        mode = os.stat(self._settings.base_path).st_mode & 0o7777
        if not mode & 0o001:
            os.chown(self._settings.base_path, -1, group_id)
            os.chmod(self._settings.base_path, mode | 0o010)  # noqa: S103

    def _extra(self, text: str) -> tuple[str, ...]:
        return ("-f", self._user_file()) if self._drops_root and not haproxy_text.names_user(text) else ()

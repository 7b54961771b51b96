"""The certificates, authorities and revocation lists that cases refer to by name, stored in the installation."""

from __future__ import annotations

from pathlib import Path

from frontinus.api.settings import ApiSettings
from frontinus.drivers.secret.local.driver import LocalSecrets, LocalSecretsSettings
from frontinus.model.certificates import Certificate
from frontinus.testing.certificates import TestAuthority, bundle


class Secrets:
    """`certificates` by name; `references` has, under the same names and those of authorities and lists, what the API takes."""

    def __init__(self, state_dir: Path) -> None:
        self.authority = TestAuthority("the authority")
        clients = TestAuthority("clients")
        self.certificates: dict[str, Certificate] = {
            "site": self.authority.issue("www.example.org"),
            "shop": self.authority.issue("shop.example.org"),
            "member": self.authority.issue("www.example.org"),
            "revoked member": self.authority.issue("www.example.org"),
            "other member": self.authority.issue("other.example.org"),
            "strange member": TestAuthority("strangers").issue("www.example.org"),
            "client": clients.issue("good"),
            "revoked client": clients.issue("bad"),
            "strange client": TestAuthority("strangers").issue("good"),
            "amphora": clients.issue("the amphora"),
        }
        self.clients_pem = clients.pem
        stored = {
            **{name: bundle(self.certificates[name]) for name in ("site", "shop", "amphora")},
            "clients": clients.pem,
            "revoked clients": clients.revoke(self.certificates["revoked client"]),
            "members": self.authority.pem,
            "revoked members": self.authority.revoke(self.certificates["revoked member"]),
        }
        store = LocalSecrets(LocalSecretsSettings(state_dir=state_dir))
        project = ApiSettings().default_project_id
        self.references = {name: store.put(content, project, name=name) for name, content in stored.items()}

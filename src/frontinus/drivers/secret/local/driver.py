"""Certificates in files of this installation, encrypted at rest, behind references as `local:<uuid>`.

AES-256-GCM under one key file; the secret's id is authenticated with it, so that files cannot be exchanged. Whoever
reads the key file and the directory reads the secrets: it keeps them out of backups of one without the other, and out
of everything that only lists files. Never logs content."""

from __future__ import annotations

import builtins
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar
from uuid import UUID, uuid4

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from frontinus.drivers.private_files import locked, scratch_files, write_private
from frontinus.drivers.secret.bundle import FIELD, describe, first_end, parse_bundle
from frontinus.drivers.secret.interface import SecretDriver
from frontinus.model.belongings import Belonging, BelongingKind
from frontinus.model.certificates import Authorities, Certificate, Revocations
from frontinus.model.errors import Invalid, Retry
from frontinus.model.ids import ProjectId

PREFIX = "local:"
LARGEST_BUNDLE = 1024 * 1024
"""Bytes. A certificate with a long chain is some 20 kB."""

_NONCE = 12
_KEY_FILE = "key"
_SUFFIX = ".secret"


@dataclass(frozen=True, kw_only=True)
class LocalSecretsSettings:
    """[driver_options.local] in the configuration file."""

    state_dir: Path
    """The installation's state directory; used for what `directory` does not name."""

    directory: Path | None = None
    """Where the secrets and their key file are; None: `secrets` in the state directory. Made on first use."""

    @property
    def secrets_directory(self) -> Path:
        return self.state_dir / "secrets" if self.directory is None else self.directory


class StoredSecret(msgspec.Struct, frozen=True, kw_only=True):
    """What may be told of a secret: never a key. `kind` is what it holds, `subject` the name of the (first)
    certificate, `names` what it is good for, `expires_at` when the first of what it holds does."""

    reference: str
    project_id: ProjectId
    name: str
    created_at: datetime
    updated_at: datetime | None = None
    kind: str = ""
    subject: str = ""
    names: tuple[str, ...] = ()
    expires_at: datetime | None = None


_NOTHING = (0, 0, 0)


class _Record(msgspec.Struct, frozen=True):
    """`certificate` and `private_key` are empty where there is no key; `intermediates` are then the authorities."""

    project_id: str
    name: str
    created_at: datetime
    certificate: bytes
    private_key: bytes
    intermediates: tuple[bytes, ...]
    lists: tuple[bytes, ...] = ()
    updated_at: datetime | None = None


class LocalSecrets(SecretDriver):
    """Any number of processes may use one directory."""

    Settings: ClassVar[type[LocalSecretsSettings]] = LocalSecretsSettings
    name: ClassVar[str] = "local"

    def __init__(self, settings: LocalSecretsSettings, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)):
        """Opens the directory, making it and its key on first use. Raises Invalid when that cannot be done."""
        self._directory = settings.secrets_directory
        self._clock = clock
        self._seen: dict[str, tuple[int, int, int]] = {}
        try:
            self._cipher = AESGCM(_open_key(self._directory))
        except (OSError, ValueError) as error:
            raise Invalid("directory", f"{self._directory} cannot hold secrets: {error}") from error

    async def certificate(self, reference: str, project_id: ProjectId) -> Certificate:
        record = self._find(reference, project_id)
        if not record.private_key:
            raise Invalid(reference, "holds no private key; store the certificate together with its key")
        return Certificate(
            certificate=record.certificate,
            private_key=record.private_key,
            intermediates=record.intermediates,
            expires_at=first_end((record.certificate, *record.intermediates)),
        )

    async def authorities(self, reference: str, project_id: ProjectId) -> Authorities:
        record = self._find(reference, project_id)
        certificates = ((record.certificate,) if record.certificate else ()) + record.intermediates
        if not certificates:
            raise Invalid(reference, "holds no certificate of an authority")
        return Authorities(certificates=certificates)

    async def revocations(self, reference: str, project_id: ProjectId) -> Revocations:
        record = self._find(reference, project_id)
        if not record.lists:
            raise Invalid(reference, "holds no revocation list (X509 CRL)")
        return Revocations(lists=record.lists)

    async def changes(self) -> frozenset[str]:
        found = self._versions()
        before, self._seen = self._seen, found
        return frozenset(ref for ref in before.keys() | found.keys() if before.get(ref) != found.get(ref))

    def forget_changes(self) -> None:
        self._seen = {}

    async def list_unused(self) -> tuple[Belonging, ...]:
        try:
            return tuple(
                Belonging(kind=BelongingKind.FILE, name=str(x), proof="named as while it was written")
                for x in scratch_files(self._directory)
            )
        except OSError as error:
            raise Retry(f"the secret store cannot be read: {error.strerror}", after=5, code="secret-store") from error

    async def discard(self, belonging: Belonging) -> None:
        if belonging in await self.list_unused():
            Path(belonging.name).unlink(missing_ok=True)

    def put(self, content: bytes, project_id: ProjectId, *, name: str = "", password: str | None = None) -> str:
        """Keep what bundle.py can read, from PEM or PKCS#12; its reference. Raises Invalid for what does not parse or
        does not fit together; then nothing is kept."""
        record = self._record_of(content, password, project_id, name, self._clock())
        secret_id = str(uuid4())
        self._write(secret_id, record)
        return f"{PREFIX}{secret_id}"

    def replace(
        self,
        reference: str,
        content: bytes,
        project_id: ProjectId,
        *,
        name: str | None = None,
        password: str | None = None,
    ) -> None:
        """Keep another content under the same reference, at once whole. Raises Invalid for an unknown secret, or for
        what `put` refuses, or when another kind of thing would stand there; then the old one is kept."""
        old = self._find(reference, project_id)
        made = self._record_of(content, password, project_id, old.name if name is None else name, old.created_at)
        if _kind_of(made) != _kind_of(old):
            raise Invalid(FIELD, f"holds {_kind_of(made)}, and {reference} holds {_kind_of(old)}; store it as another")
        self._write(reference.removeprefix(PREFIX), msgspec.structs.replace(made, updated_at=self._clock()))

    def show(self, reference: str, project_id: ProjectId) -> StoredSecret:
        """What may be told of one secret. Raises Invalid for an unknown one."""
        return _told(reference, self._find(reference, project_id))

    def list(self, project_id: ProjectId | None) -> tuple[StoredSecret, ...]:
        """The project's secrets, or everybody's, oldest first. One that is damaged is nobody's, since its owner cannot be read."""
        found: builtins.list[StoredSecret] = []
        for path in self._directory.glob(f"*{_SUFFIX}"):
            reference = f"{PREFIX}{path.stem}"
            try:
                record = self._read(path)
            except Invalid:
                continue
            if record is not None and project_id in (None, record.project_id):
                found.append(_told(reference, record))
        return tuple(sorted(found, key=lambda secret: (secret.created_at, secret.reference)))

    def delete(self, reference: str, project_id: ProjectId) -> None:
        """Forget a secret. An unknown one, or another project's, is left as it is: Invalid."""
        self._find(reference, project_id)
        (self._directory / f"{reference.removeprefix(PREFIX)}{_SUFFIX}").unlink(missing_ok=True)

    def _record_of(
        self, content: bytes, password: str | None, project_id: ProjectId, name: str, created_at: datetime
    ) -> _Record:
        if len(content) > LARGEST_BUNDLE:
            raise Invalid(FIELD, f"is larger than {LARGEST_BUNDLE} bytes")
        bundle = parse_bundle(content, password)
        certificate = bundle.certificate
        return _Record(
            project_id=project_id,
            name=name,
            created_at=created_at,
            certificate=b"" if certificate is None else certificate.certificate,
            private_key=b"" if certificate is None else certificate.private_key,
            intermediates=bundle.authorities if certificate is None else certificate.intermediates,
            lists=bundle.lists,
        )

    def _write(self, secret_id: str, record: _Record) -> None:
        nonce = secrets.token_bytes(_NONCE)
        sealed = nonce + self._cipher.encrypt(nonce, msgspec.json.encode(record), secret_id.encode())
        write_private(self._directory / f"{secret_id}{_SUFFIX}", sealed)

    def _versions(self) -> dict[str, tuple[int, int, int]]:
        """Reference -> what tells one version of its file from another. Raises Retry."""
        found = {}
        try:
            for entry in os.scandir(self._directory):
                if entry.name.endswith(_SUFFIX):
                    with suppress(FileNotFoundError):
                        status = entry.stat()
                        reference = f"{PREFIX}{entry.name.removesuffix(_SUFFIX)}"
                        found[reference] = (status.st_ino, status.st_mtime_ns, status.st_size)
        except OSError as error:
            raise Retry(f"the secret store cannot be read: {error.strerror}", after=5, code="secret-store") from error
        return found

    def _find(self, reference: str, project_id: ProjectId) -> _Record:
        path = self._path(reference)
        record = None if path is None else self._read(path)
        if record is None and reference in self._seen:
            # Should it be back before anybody looks at what changed, it would seem as it was.
            self._seen[reference] = _NOTHING
        if record is None or record.project_id != project_id:
            # One answer for both: whether another project has such a secret is not told.
            raise Invalid(reference, "this project has no such secret; store it first")
        return record

    def _path(self, reference: str) -> Path | None:
        text = reference.removeprefix(PREFIX)
        try:
            secret_id = str(UUID(text))
        except ValueError:
            return None
        # Only the canonical spelling: one secret has one reference.
        return self._directory / f"{secret_id}{_SUFFIX}" if f"{PREFIX}{secret_id}" == reference else None

    def _read(self, path: Path) -> _Record | None:
        try:
            sealed = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Retry(f"the secret store cannot be read: {error.strerror}", after=5, code="secret-store") from error
        try:
            text = self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], path.stem.encode())
            return msgspec.json.decode(text, type=_Record)
        except (InvalidTag, ValueError, msgspec.DecodeError) as error:
            reference = f"{PREFIX}{path.stem}"
            raise Invalid(reference, "is damaged, or was sealed with another key file; store it anew") from error


def _kind_of(record: _Record) -> str:
    if record.private_key:
        return "a certificate with its key"
    parts = [word for word, held in (("authorities", record.intermediates), ("revocations", record.lists)) if held]
    return " and ".join(parts)


def _told(reference: str, record: _Record) -> StoredSecret:
    certificates = ((record.certificate,) if record.certificate else ()) + record.intermediates
    subject, names = describe(certificates[0]) if certificates else ("", ())
    return StoredSecret(
        reference=reference,
        project_id=ProjectId(record.project_id),
        name=record.name,
        created_at=record.created_at,
        updated_at=record.updated_at,
        kind=_kind_of(record),
        subject=subject,
        names=names,
        expires_at=first_end(certificates, record.lists),
    )


def _open_key(directory: Path) -> bytes:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    path = directory / _KEY_FILE
    with locked(directory):
        if not path.exists():
            write_private(path, AESGCM.generate_key(256))
    key = path.read_bytes()
    if len(key) != 32:
        raise ValueError(f"{path} is not a key of 32 bytes")
    return key

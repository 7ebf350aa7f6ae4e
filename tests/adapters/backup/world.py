"""Archives that are backed up, and what is looked at when they come back."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import refold
from refold import Collection, Field
from refold_adapters import backup as store
from refold_adapters.backup import Known, Order, Secret
from refold_adapters.recovery import RestoreReport

NOW = 1_800_000_000_000
NOTES = Collection(
    name="notes", key="id", folder="{place}", fields={"id": Field("str"), "place": Field("str"), "n": Field("int")}
)
SECRET = Secret("scrypt", b"correct horse", cost=1 << 4)


def quiet(what: str, done: int) -> None:
    """Takes progress and says nothing."""


@dataclass
class World:
    """An archive in `root / "a"` with its backups in `root / "backups"`; every backup is made a minute later."""

    root: Path
    now: int = NOW
    salt: int = 0
    directory: Path = Path()
    notes: list[str] = field(default_factory=list)

    @property
    def archive(self) -> Path:
        return self.root / "a"

    def __post_init__(self) -> None:
        if self.directory == Path():
            self.directory = self.root / "backups"

    async def write(self, first: int, last: int, *, replica: str = "office") -> None:
        """Writes notes number `first` to `last - 1`, and an update of the first."""
        async with refold.open(self.archive, replica=replica) as engine:
            if "notes" not in engine.schemas:
                await engine.define(NOTES)
            async with engine.batch() as batch:
                for n in range(first, last):
                    batch.put("notes", {"id": f"{n:04}", "place": f"p{n % 7}", "n": n})
            await engine.put("notes", {"id": f"{first:04}", "place": "moved", "n": -first})

    async def create(self, **options: object) -> Known:
        """Makes a backup."""
        self.now += 60_000
        self.salt += 1
        order = Order(**options)  # type: ignore[arg-type]
        salt = self.salt.to_bytes(16, "big")
        made = await asyncio.to_thread(
            store.create, self.archive, self.directory, order, now=self.now, salt=salt, tell=quiet
        )
        self.notes = made.notes
        return made.backup

    def path(self, known: Known) -> Path:
        """Where its file is."""
        return self.directory / known.file

    async def restore(self, known: Known, name: str = "b", secret: Secret | None = None) -> RestoreReport:
        """Brings it back in `root / name`."""
        return await store.restore_backup(self.path(known), self.root / name, secret=lambda: secret)

    async def history(self, secret: Secret | None = None) -> store.History:
        """What is in the directory."""
        return await asyncio.to_thread(store.read_history, self.directory, lambda: secret)

    async def verify(self, secret: Secret | None = None) -> store.BackupReport:
        """Verifies all of them."""
        history = await self.history(secret)
        paths = [self.path(known) for known in history.backups]
        return await asyncio.to_thread(store.verify, paths, history, whole=True, secret=lambda: secret, tell=quiet)


def tree(root: Path) -> dict[str, bytes]:
    """What is in the folders of an archive, but for the root's, which tells whose copy it is."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".db" not in path.name and (path.parent != root or path.name == "refold.toml")
    }


async def digest(root: Path) -> str:
    """The digest of the state of an archive."""
    async with refold.open(root, create=False, readonly=True) as engine:
        return await engine.digest()

"""Commands for backups: create, list, show, verify, restore and prune them."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from refold.errors import StorageFailed
from refold.moment import Moment
from refold.opening import system_clock
from refold_adapters import backup as store
from refold_adapters.backup.drill import SAMPLE
from refold_adapters.backup.manifest import parse_name
from refold_adapters.recovery import RestoreReport

from .context import Settled, pass_settled, perform
from .options import MomentType, TimeType, speech
from .output import cell, document, pairs, progress, say, table, write
from .restoring import tell_restored
from .verifying import describe

F = TypeVar("F", bound=Callable[..., Any])

PARTLY, UNVERIFIED = 3, 4
ENDING = ".backups"
"""What is added to the archive's name to name the directory beside it that its backups are in."""


def place(command: F) -> F:
    """--dir, where backups are."""
    text = "The directory of backups; beside the archive, ARCHIVE.backups, otherwise."
    return click.option(
        "-d", "--dir", "directory", type=click.Path(path_type=Path), envvar="REFOLD_BACKUPS", metavar="DIR", help=text
    )(command)


def secret_options(command: F) -> F:
    """--passphrase-file and --key-file."""
    path = click.Path(path_type=Path, dir_okay=False)
    for name, text in (
        ("--key-file", "A file of at least 32 random bytes that encrypts backups and opens them."),
        ("--passphrase-file", "A file with the passphrase that encrypts backups and opens them; or REFOLD_PASSPHRASE."),
    ):
        command = click.option(name, type=path, metavar="FILE", help=text)(command)
    variable = click.option("--passphrase", envvar="REFOLD_PASSPHRASE", hidden=True, help="Only from the environment.")
    return variable(command)


class Opening(msgspec.Struct, frozen=True):
    """What a command was told about where backups are and what opens them."""

    directory: Path
    passphrase: str | None
    passphrase_file: Path | None
    key_file: Path | None

    def secret(self) -> store.Secret | None:
        """What opens encrypted backups, read when it is needed. Raises `SettingsInvalid`, `StorageFailed`."""
        if self.key_file is not None:
            return store.read_secret(self.key_file, "key-file")
        if self.passphrase_file is not None:
            return store.read_secret(self.passphrase_file, "scrypt")
        return store.passphrase(self.passphrase) if self.passphrase is not None else None


def directory_of(settled: Settled, stated: Path | None) -> Path:
    """Where backups are: as stated, else as set in refold.toml, else beside the archive."""
    if stated is not None:
        return stated
    root = settled.root.resolve()
    told = settled.cli().backups
    return root / told if told is not None else root.with_name(root.name + ENDING)


def opening(settled: Settled, options: dict[str, Any]) -> Opening:
    """Takes the options of `place` and `secret_options` out of all that a command was given."""
    passphrase, file, key = (options.pop(name) for name in ("passphrase", "passphrase_file", "key_file"))
    if file is not None and key is not None:
        raise click.UsageError("a passphrase or a key file, not both")
    return Opening(directory_of(settled, options.pop("directory")), passphrase, file, key)


@click.group()
@speech
def backup() -> None:
    """Back the archive up into one file at a time, and bring it back."""


@backup.command()
@place
@secret_options
@click.option(
    "--incremental", is_flag=True, help="Only what is new since the newest backup that this log goes on from."
)
@click.option("--description", default="", metavar="TEXT", help="What is said of this backup in the list.")
@click.option("--documents", is_flag=True, help="With the other files in the folders, which are not refold's.")
@click.option(
    "--compression", type=click.Choice(("deflate", "zstd")), default="deflate", show_default=True, help="How to pack."
)
@click.option(
    "--time", type=TimeType(), metavar="TIME", help="When this backup is said to have been made; now otherwise."
)
@speech
@pass_settled
def create(settled: Settled, /, time: int | None, **options: Any) -> int:
    """Make a backup, beside whoever writes the archive. Exit code 3 when documents had to be left out."""
    given = opening(settled, options)
    settled.must_exist()

    async def work() -> int:
        secret = await asyncio.to_thread(given.secret)
        order = store.Order(secret=secret, **options)
        now = time if time is not None else system_clock()
        async with settled.reading():
            pass
        with progress(quiet=settled.quiet) as bars:
            made = await store.in_thread(
                lambda tell: store.create(
                    settled.root, given.directory, order, now=now, salt=secrets.token_bytes(16), tell=tell
                ),
                bars,
            )
        if settled.json:
            document({**told(made.backup), "path": str(given.directory / made.backup.file), "notes": made.notes})
        else:
            for note in made.notes:
                say(f"note: {cell(note)}")
            if not settled.quiet:
                write(
                    f"{made.backup.kind} backup {made.backup.id} of {made.backup.events} events: {made.backup.file}\n"
                )
        return PARTLY if made.left_out else 0

    return perform(work)


def told(known: store.Known) -> dict[str, Any]:
    """A backup as scripts read it."""
    found = msgspec.to_builtins(known)
    found["vector"] = {name: seq for name, (seq, _) in known.heads.items()} if known.heads is not None else None
    del found["heads"]
    return dict(found)


async def _history(given: Opening) -> store.History:
    """What is in the directory, its history.json mended where that can be done."""

    def read() -> store.History:
        history = store.read_history(given.directory, given.secret)
        if history.stale:
            with suppress(StorageFailed):
                store.write_history(given.directory, history.backups)
        return history

    return await store.in_thread(lambda tell: read(), lambda what, done: None)


@backup.command(name="list")
@place
@secret_options
@speech
@pass_settled
def list_(settled: Settled, /, **options: Any) -> int:
    """List the backups, oldest first. Exit code 4 when files in the directory are no backups though named so."""
    given = opening(settled, options)

    async def work() -> int:
        history = await _history(given)
        if settled.json:
            document(
                {
                    "directory": str(given.directory),
                    "backups": [told(known) for known in history.backups],
                    "unusable": history.unusable,
                }
            )
        else:
            table(("id", "created", "kind", "events", "bytes", "description"), map(_row, history.backups))
            if not await asyncio.to_thread(given.directory.is_dir):
                say(f"note: there is no directory {cell(str(given.directory))} yet; --dir says where backups are")
            for unusable in history.unusable:
                say(f"not usable: {cell(unusable.file)}: {cell(unusable.why)}")
        return UNVERIFIED if history.unusable else 0

    return perform(work)


def _row(known: store.Known) -> tuple[str, ...]:
    events = "encrypted" if known.events is None else str(known.events)
    return known.id[:12], known.created, known.kind, events, str(known.size), cell(known.description)


def path_of(history: store.History, name: str, directory: Path) -> Path:
    """The file that a person means by an ID, a path, or `latest`. Raises `BackupUnknown`."""
    if os.sep in name or (parse_name(name) is None and Path(name).is_file()):
        return Path(name)
    return directory / store.find(history, name, directory).file


async def choose(given: Opening, name: str) -> tuple[store.History, Path]:
    """The history and the backup that a person means; a path needs no directory."""
    if os.sep in name:
        path = Path(name)
        return store.History([]), path
    history = await _history(given)
    return history, await asyncio.to_thread(path_of, history, name, given.directory)


@backup.command()
@click.argument("which", metavar="ID|FILE|latest")
@place
@secret_options
@speech
@pass_settled
def show(settled: Settled, /, which: str, **options: Any) -> int:
    """Show the manifest of a backup."""
    given = opening(settled, options)

    async def work() -> None:
        _, path = await choose(given, which)

        def read() -> tuple[str, store.Manifest, bool, int]:
            with store.BackupFile(path, given.secret) as found:
                return found.id, found.manifest, found.encrypted, found.file.size

        id_, manifest, encrypted, size = await asyncio.to_thread(read)
        if settled.json:
            document(
                {"id": id_, "file": str(path), "size": size, "encrypted": encrypted, **msgspec.to_builtins(manifest)}
            )
            return
        rows = [
            ("id", id_),
            ("file", cell(str(path))),
            ("bytes", str(size)),
            ("encrypted", "yes" if encrypted else "no"),
        ]
        rows += [(name, cell(getattr(manifest, name))) for name in ("kind", "description", "created", "replica")]
        rows += [(name, cell(getattr(manifest, name))) for name in ("after", "position", "events", "digest", "vector")]
        rows += [("parent", manifest.parent.id if manifest.parent is not None else "")]
        rows += [("documents", str(manifest.documents.count) if manifest.documents is not None else "")]
        rows += [(cell(entry.name), f"{entry.size} bytes, SHA-256 {entry.sha256}") for entry in manifest.entries]
        pairs(rows)

    return perform(work)


@backup.command()
@click.argument("which", metavar="[ID|FILE|latest]", required=False)
@place
@secret_options
@speech
@pass_settled
def verify(settled: Settled, /, which: str | None, **options: Any) -> int:
    """Read all backups, or one and what it goes on from, and prove them. Exit code 4 when anything is found."""
    given = opening(settled, options)

    async def work() -> int:
        if which is None:
            history = await _history(given)
            paths = [given.directory / known.file for known in history.backups]
        else:
            history, path = await choose(given, which)
            paths = store.with_parents(path, history)
        with progress(quiet=settled.quiet) as bars:
            report = await store.in_thread(
                lambda tell: store.verify(paths, history, whole=which is None, secret=given.secret, tell=tell), bars
            )
        if settled.json:
            document({"ok": report.ok, **msgspec.to_builtins(report)})
        else:
            for finding in report.findings:
                write(describe(finding) + "\n")
            if not settled.quiet:
                say(f"{report.backups} backups, {report.events} events: {'in order' if report.ok else 'not in order'}")
        return 0 if report.ok else UNVERIFIED

    return perform(work)


@backup.command()
@click.argument("which", metavar="ID|FILE|latest")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="NEW", help="Make it there.")
@click.option("--at", type=MomentType(), help="Up to this moment of it only.")
@click.option("--replica", metavar="ID", help="The id that the new log writes under; random otherwise.")
@click.option("--actor", envvar="REFOLD_ACTOR", help="Who brings it back, for the new log; the user's name otherwise.")
@place
@secret_options
@speech
@pass_settled
def restore(
    settled: Settled,
    /,
    which: str,
    output: Path,
    at: Moment | None,
    replica: str | None,
    actor: str | None,
    **options: Any,
) -> int:
    """Make a new archive of a backup, and verify it. Exit code 4 when the result does not verify."""
    given = opening(settled, options)
    target, who = output.absolute(), settled.actor(actor)

    async def work() -> int:
        _, path = await choose(given, which)
        with progress(quiet=settled.quiet) as bars:
            report: RestoreReport = await store.restore_backup(
                path, target, secret=given.secret, at=at, replica=replica, actor=who, progress=bars
            )
        tell_restored(settled, report)
        return 0 if report.ok else UNVERIFIED

    return perform(work)


def _rules(command: F) -> F:
    for rule in ("yearly", "monthly", "weekly", "daily", "hourly"):
        noun = {"daily": "day"}.get(rule, rule.removesuffix("ly"))
        text = f"Keep the newest of each of the last N {noun}s that have one."
        command = click.option(f"--keep-{rule}", rule, type=click.IntRange(0), default=0, metavar="N", help=text)(
            command
        )
    text = "Keep the newest N."
    return click.option("--keep-last", "last", type=click.IntRange(0), default=0, metavar="N", help=text)(command)


@backup.command()
@_rules
@click.option("--dry-run", is_flag=True, help="Remove nothing, say what would be.")
@click.option("--time", type=TimeType(), metavar="TIME", help="This command's clock, which the lock tells to others.")
@place
@secret_options
@speech
@pass_settled
def prune(settled: Settled, /, dry_run: bool, time: int | None, **options: Any) -> int:
    """Remove the backups that no rule keeps, but never what a kept one goes on from, nor the newest."""
    given = opening(settled, options)
    policy = store.Policy(**options)
    if not policy.keeps_any:
        raise click.UsageError("say what to keep: --keep-last, --keep-daily, …")
    now = time if time is not None else system_clock()

    async def work() -> None:
        with progress(quiet=settled.quiet) as bars:
            pruned = await store.in_thread(
                lambda tell: store.prune(
                    given.directory, policy, dry_run=dry_run, now=now, secret=given.secret, tell=tell
                ),
                bars,
            )
        if settled.json:
            found = msgspec.to_builtins(pruned)
            document({**found, "removed": [told(known) for known in pruned.removed]})
            return
        for known in pruned.removed:
            write(f"{'would remove' if dry_run else 'removed'}\t{known.id}\t{known.created}\n")
        if not settled.quiet:
            for id_, reasons in pruned.keep.items():
                write(f"kept\t{id_}\t{', '.join(reasons)}\n")
            for file in pruned.left:
                say(f"left alone: {cell(file)}: it cannot be restored, which `refold backup verify` explains")

    return perform(work)


class Count(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A number, or `all`."""

    name = "N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See `click.ParamType.convert`; all is -1."""
        if value == "all":
            return -1
        if not isinstance(value, int) and not value.isdecimal():
            self.fail(f"{value!r} is neither a number nor all", param, ctx)
        return int(value)


@click.command()
@click.option(
    "--from",
    "origin",
    type=click.Choice(("backup", "log", "folders")),
    default="backup",
    show_default=True,
    help="What is brought back.",
)
@click.option("--backup", "which", default="latest", show_default=True, metavar="ID|FILE", help="Which backup.")
@click.option("--records", type=Count(), default=SAMPLE, show_default=True, metavar="N|all", help="Compare so many.")
@click.option(
    "--scratch", type=click.Path(path_type=Path), metavar="DIR", help="Restore below it, not in the system's."
)
@place
@secret_options
@speech
@pass_settled
def drill(settled: Settled, /, origin: str, which: str, records: int, scratch: Path | None, **options: Any) -> int:
    """Restore into a place of its own, compare with the living archive, throw it away; one line says how it went.

    Exit code 4 when something does not agree.
    """
    given = opening(settled, options)

    async def work() -> int:
        path = (await choose(given, which))[1] if origin == "backup" else None
        what = store.Drill(
            root=settled.root,
            origin=origin,
            backup=path,
            scratch=scratch,
            records=records if records >= 0 else None,
            secret=given.secret,
        )
        with progress(quiet=settled.quiet) as bars:
            done = await store.drill(what, progress=bars)
        if settled.json:
            document({"ok": done.ok, **msgspec.to_builtins(done)})
        else:
            if not settled.quiet or not done.ok:
                write(drill_line(done) + "\n")
            for finding in done.findings:
                write(describe(finding) + "\n")
        return 0 if done.ok else UNVERIFIED

    return perform(work)


def drill_line(done: store.Drilled) -> str:
    """How a drill went, for the mail that cron sends."""
    outcome = "drill ok" if done.ok else f"drill FAILED, {len(done.findings)} findings"
    against = (
        f"{done.compared} records compared, {done.changed} changed since" if done.live else "no archive to compare"
    )
    return (
        f"{outcome}: {done.origin} {cell(done.source)}: {done.events} events, {done.records} records restored in"
        f" {done.seconds['restore']} s, {against}, digest {done.digest}"
    )


COMMANDS: list[click.Command] = [backup, drill]

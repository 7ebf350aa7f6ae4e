"""What every command knows: the archive, how to speak, who acts; and how a command comes to an open engine.

A value comes from its option, else from the environment (`REFOLD_*`), else from the table `[cli]` of the archive's
refold.toml, else from its default.
"""

from __future__ import annotations

import tomllib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

import refold
from refold.errors import (
    FormatOld,
    Locked,
    ProjectionFailed,
    SettingsInvalid,
    StorageFailed,
    StorePoisoned,
)
from refold_adapters.settings import FILE, load_settings, require_log

from .output import OutputClosed

if TYPE_CHECKING:
    from refold import Engine

_NEVER = 1e6


class CliSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What refold.toml may say under `[cli]`."""

    actor: str | None = None
    batch_size: int | None = None
    backups: str | None = None


class Settled(msgspec.Struct):
    """How one run of the command line is to behave."""

    root: Path = Path()
    json: bool = False
    quiet: bool = False
    verbose: int = 0

    def cli(self) -> CliSettings:
        """The archive's settings for the command line. Raises `SettingsInvalid`, `StorageFailed`."""
        path = self.root / FILE
        try:
            return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")).get("cli", {}), CliSettings)
        except (FileNotFoundError, NotADirectoryError):
            return CliSettings()
        except OSError as error:
            raise StorageFailed(str(path), "reading the settings", str(error)) from error
        except (ValueError, RecursionError) as error:
            raise SettingsInvalid(str(path), str(error)) from error

    def actor(self, stated: str | None) -> str:
        """Who acts: as stated, else as set, else the user of this process."""
        if stated is None:
            stated = self.cli().actor
        if stated is not None:
            return stated
        import getpass

        try:
            return getpass.getuser()
        except (OSError, KeyError):
            return ""

    def must_exist(self) -> Path:
        """The path of the log. Raises `ArchiveMissing`, and `LogLost` where something else of an archive is there."""
        return require_log(self.root, load_settings(self.root))

    @asynccontextmanager
    async def writing(self, time: int | None = None) -> AsyncIterator[Engine]:
        """The archive, which must be there, opened for writing.

        A command writes its folders once, when it ends: a pause of its own is no reason to begin with them.
        """
        async with refold.open(self.root, create=False, time=time, quiet=_NEVER) as engine:
            yield engine

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Engine]:
        """The archive opened beside whoever writes it.

        Tables that are gone are brought back first. So are tables that a crash left behind the log, which holds what
        was acknowledged; where that cannot be done now, they are read as they are, and `status` says so.
        """
        import asyncio

        log = await asyncio.to_thread(self.must_exist)
        tables = self.root / (await asyncio.to_thread(load_settings, self.root)).tables
        if not await asyncio.to_thread(tables.is_file):
            async with self.writing():
                pass
        elif await asyncio.to_thread(_is_behind, log, tables):
            with suppress(Locked, StorageFailed, ProjectionFailed, StorePoisoned):
                async with self.writing():
                    pass
        async with refold.open(self.root, create=False, readonly=True) as engine:
            yield engine


def _is_behind(log_path: Path, tables_path: Path) -> bool:
    from refold_adapters.sqlite_log import SqliteLog
    from refold_adapters.sqlite_tables import SqliteTables

    with ExitStack() as stack:
        log = stack.enter_context(closing(SqliteLog(log_path, readonly=True)))
        try:
            tables = stack.enter_context(closing(SqliteTables(tables_path, log.at, log.bodies_at, readonly=True)))
        except FormatOld:
            return True
        return tables.checkpoint().position < log.end()


class Interrupted(Exception):
    """Ctrl-C, once the archive is closed; click would write an empty line for a KeyboardInterrupt."""


pass_settled = click.make_pass_decorator(Settled, ensure=True)


def log_to_stderr(verbose: int) -> None:
    """Sends what the library logs to stderr: warnings, with 1 what it does, with 2 everything."""
    import logging
    import sys

    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s", force=True)


def perform(work: Callable[[], Coroutine[Any, Any, int | None]]) -> int:
    """Runs the asynchronous part of a command; its exit code.

    Ctrl-C cancels it, so that the archive is closed in order, with what was pending made durable.
    """
    import asyncio

    context = click.get_current_context(silent=True)
    log_to_stderr(context.ensure_object(Settled).verbose if context is not None else 0)
    try:
        return asyncio.run(work()) or 0
    except OutputClosed:
        return 0
    except KeyboardInterrupt:
        raise Interrupted from None

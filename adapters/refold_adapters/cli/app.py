"""The commands in one place, and what becomes of errors: messages for people or JSON, and the exit code.

| code | meaning |
| --- | --- |
| 0 | ok |
| 1 | failure |
| 2 | wrong usage |
| 3 | partly done |
| 4 | verification failed |
| 5 | unresolved conflicts |
| 10 | no archive |
| 11 | locked |
| 130 | interrupted |
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import click

from refold import RefoldError
from refold.clock import TimeTextError
from refold.errors import ArchiveMissing, Locked, ProjectionFailed
from refold_adapters.importing import KeyNeeded
from refold_adapters.recovery import ReceiptRefused

from . import (
    adopting,
    backups,
    capturing,
    editing,
    moments,
    moving,
    reading,
    rebuilding,
    recovering,
    syncing,
    verifying,
    writing,
)
from .context import Interrupted, Settled
from .options import speech
from .output import OutputClosed, complain, say, trouble

INTERRUPTED = 130
CODES: dict[type[RefoldError], int] = {
    TimeTextError: 2,
    KeyNeeded: 2,
    ProjectionFailed: 3,
    ReceiptRefused: 4,
    ArchiveMissing: 10,
    Locked: 11,
}
"""The exit codes of errors that have one of their own; the others exit with 1."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "-C",
    "directory",
    type=click.Path(path_type=Path),
    envvar="REFOLD_DIR",
    default=".",
    metavar="DIR",
    help="The archive, instead of REFOLD_DIR or the current directory.",
)
@click.version_option(version("refold"), message="refold %(version)s")
@speech
@click.pass_context
def app(ctx: click.Context, directory: Path) -> None:
    """Records that live in folders, from a log that brings everything back."""
    settled = ctx.ensure_object(Settled)
    settled.root = directory


_CHANGING = (writing, syncing, editing, adopting, capturing)
_PARTS = (*_CHANGING, reading, verifying, rebuilding, moving, moments, backups, recovering)
for _command in (command for part in _PARTS for command in part.COMMANDS):
    app.add_command(_command)


def exit_code(error: RefoldError) -> int:
    """The code that a command ends with after this error."""
    return next((CODES[kind] for kind in type(error).__mro__ if kind in CODES), 1)


def run(arguments: Sequence[str]) -> int:
    """Runs one command line; its exit code."""
    as_json = "--json" in arguments
    _log(arguments)
    try:
        return int(app.main(list(arguments), prog_name="refold", standalone_mode=False) or 0)
    except OutputClosed:
        return 0
    except RefoldError as error:
        complain(error, as_json=as_json)
        return exit_code(error)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.ClickException as error:
        hint = "refold --help"
        if isinstance(error, click.UsageError) and error.ctx is not None:
            hint = f"{error.ctx.command_path} --help"
        trouble("usage", error.format_message(), hint, {}, as_json=as_json)
        return 2
    except (Interrupted, click.Abort, KeyboardInterrupt):
        trouble("interrupted", "interrupted", "what was acknowledged is kept", {}, as_json=as_json)
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last resort: said, and not shown as a wall of text
        trouble(
            "internal", f"{type(error).__name__}: {error}", "run it again with -v to see where", {}, as_json=as_json
        )
        if _loudness(arguments):
            say(traceback.format_exc())
        return 1


def _loudness(arguments: Sequence[str]) -> int:
    return sum({"-v": 1, "--verbose": 1, "-vv": 2}.get(argument, 0) for argument in arguments)


def _log(arguments: Sequence[str]) -> None:
    """Sends what the library logs to stderr: warnings, with -v what it does, with -vv everything."""
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(_loudness(arguments), 2)]
    logging.basicConfig(level=level, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s", force=True)

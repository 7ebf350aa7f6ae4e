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

from collections.abc import Sequence
from pathlib import Path

import click

from refold.errors import RefoldError

from .context import Interrupted, Settled
from .lazy import Commands
from .options import speech
from .output import OutputClosed, complain, say, trouble

INTERRUPTED = 130
CODES = {
    "TimeTextError": 2,
    "KeyNeeded": 2,
    "ProjectionFailed": 3,
    "ReceiptRefused": 4,
    "ArchiveMissing": 10,
    "Locked": 11,
    "DatabaseBusy": 11,
}
"""The exit codes of errors that have one of their own, by the name of their class; the others exit with 1."""

MODULES = {
    "adopting": ("adopt", "quarantine"),
    "backups": ("backup", "drill"),
    "scheduled": ("export", "restore", "verify"),
    "capturing": ("capture",),
    "documents": ("prune", "scan"),
    "editing": ("adopt-edits",),
    "moments": ("blame", "diff", "tag"),
    "reading": ("deletions", "digest", "get", "log", "ls", "status"),
    "rebuilding": ("rebuild",),
    "recovering": ("recover",),
    "syncing": ("conflicts", "resolve", "sync"),
    "validating": ("validate",),
    "writing": ("define", "delete", "import", "init", "patch", "put"),
}
"""The commands that each module of this package has."""


def _say_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:  # noqa: ARG001 - click's
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"refold {version('refold')}")
        ctx.exit()


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
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_say_version,
    help="Show the version and exit.",
)
@speech
@click.pass_context
def app(ctx: click.Context, directory: Path) -> None:
    """Records that live in folders, from a log that brings everything back."""
    settled = ctx.ensure_object(Settled)
    settled.root = directory


app.commands = Commands(__package__, MODULES)


def exit_code(error: RefoldError) -> int:
    """The code that a command ends with after this error."""
    return next((CODES[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in CODES), 1)


def run(arguments: Sequence[str]) -> int:
    """Runs one command line; its exit code."""
    as_json = "--json" in arguments
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
            import traceback

            say(traceback.format_exc())
        return 1


def _loudness(arguments: Sequence[str]) -> int:
    return sum({"-v": 1, "--verbose": 1, "-vv": 2}.get(argument, 0) for argument in arguments)

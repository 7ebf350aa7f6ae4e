"""The options that turn export, verify and restore to an older tool's archive: a database and plain folders.

A command line is for one archive or for the other: none of these options goes with those of a refold archive, and the
help shows them under a heading of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from .context import Settled

NAMES = ("config", "db", "archive", "log_file", "wait")
SHARED = ("dry_run",)
"""Parameters of a command that mean the same for both kinds of archive."""

HEADING = "Options for an older tool's archive"


class TwoWays(click.Command):
    """A command whose help shows the options of an older tool's archive apart."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See `click.Command.format_options`."""
        shown: dict[bool, list[tuple[str, str]]] = {False: [], True: []}
        for param in self.get_params(ctx):
            if (record := param.get_help_record(ctx)) is not None:
                shown[param.name in NAMES].append(record)
        for title, is_older in (("Options", False), (HEADING, True)):
            with formatter.section(title):
                formatter.write_dl(shown[is_older])


def older(command: Callable[..., int]) -> Callable[..., int]:
    """Adds the options, and runs the older tool's command of the same name where one of them is given."""

    @wraps(command)
    def either(*, config: Path | None, **rest: Any) -> int:
        chosen = {name: rest.pop(name) for name in NAMES if name != "config"}
        ctx = click.get_current_context()
        if config is None and all(value is None for value in chosen.values()):
            return command(**rest)
        for param in ctx.command.params:
            name = str(param.name)
            stated = ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
            if stated and name in rest and name not in SHARED:
                raise click.UsageError(
                    f"{param.opts[0]} is for a refold archive, and goes with none of --config, --db and --archive"
                )
        from .older_running import run_older

        return run_older(
            ctx.ensure_object(Settled), str(ctx.command.name), config, dry_run=bool(rest.get("dry_run")), **chosen
        )

    path = click.Path(path_type=Path)
    for option in (
        click.option("--wait", type=click.FloatRange(0), metavar="SECONDS", help="For the lock; 30 otherwise."),
        click.option("--log", "log_file", type=path, metavar="FILE", help="Add what happens to this file."),
        click.option("--archive", type=path, metavar="DIR", help="The folders."),
        click.option("--db", type=path, metavar="FILE", help="The database."),
        click.option("--config", type=path, metavar="FILE.json", help="Settings; the other options beat it."),
    ):
        either = option(either)
    return either

"""Options and arguments that several commands share."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from refold.clock import TimeTextError, parse_time
from refold.errors import FieldUnknown, MomentRefused, ValueRefused

from .context import Settled

F = TypeVar("F", bound=Callable[..., Any])


if TYPE_CHECKING:
    from refold.moment import Moment
    from refold.schema import Schema

    TimeParam = click.ParamType[int]
    DurationParam = click.ParamType[int]
    MomentParam = click.ParamType[Moment]
else:
    TimeParam = DurationParam = MomentParam = click.ParamType


class TimeType(TimeParam):
    """A time in RFC 3339, or a date, as Unix milliseconds."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See `click.ParamType.convert`."""
        if isinstance(value, int):
            return value
        try:
            return parse_time(value)
        except TimeTextError as error:
            self.fail(f"{error}; {error.hint}", param, ctx)


_DURATION = re.compile(r"(?:(\d{1,4})h)?(?:(\d{1,6})m)?(?:(\d{1,8})s)?", re.ASCII)


class DurationType(DurationParam):
    """How long, as `90s`, `10m` or `1h30m`, in seconds."""

    name = "DURATION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See `click.ParamType.convert`."""
        if isinstance(value, int):
            return value
        found = _DURATION.fullmatch(value)
        if found is None or not any(found.groups()):
            self.fail(f"{value!r} is no length of time; say it as 90s, 10m, 2h or 1h30m", param, ctx)
        hours, minutes, seconds = (int(part or 0) for part in found.groups())
        return hours * 3600 + minutes * 60 + seconds


class MomentType(MomentParam):
    """A moment of the archive: a time, a date, @POSITION, @end, a tag, or a version vector."""

    name = "MOMENT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Moment:
        """See `click.ParamType.convert`."""
        from refold.moment import moment_of, parse_moment

        if not isinstance(value, str):
            return moment_of(value)
        try:
            return parse_moment(value)
        except (TimeTextError, MomentRefused) as error:
            self.fail(f"{error}; {error.hint}", param, ctx)


def _heed(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    settled = ctx.ensure_object(Settled)
    if value and param.name is not None:
        setattr(settled, param.name, value)


def speech(command: F) -> F:
    """--json, -q and -v, which are taken before and after the name of a command."""
    for option in (
        click.option("-v", "--verbose", count=True, expose_value=False, callback=_heed, help="Say more; -vv says all."),
        click.option("-q", "--quiet", is_flag=True, expose_value=False, callback=_heed, help="Say nothing but errors."),
        click.option(
            "--json", is_flag=True, expose_value=False, callback=_heed, help="Answer in JSON; errors too, on stderr."
        ),
    ):
        command = option(command)
    return command


def time_option(command: F) -> F:
    """--time, the clock of a writing command."""
    text = "This command's clock, for back-dated history; not before the newest event."
    return click.option("--time", type=TimeType(), metavar="TIME", help=text)(command)


def at_option(command: F) -> F:
    """--at, the moment that is looked at."""
    text = "As it was at this time, @POSITION, tag or version vector."
    return click.option("--at", type=MomentType(), help=text)(command)


def wording(command: F) -> F:
    """--actor, --reason and --time."""
    command = time_option(command)
    command = click.option("--reason", help="Why, for the log.")(command)
    return click.option("--actor", envvar="REFOLD_ACTOR", help="Who, for the log; the user's name otherwise.")(command)


def preconditions(command: F) -> F:
    """--if-version and --request-id."""
    text = "Write once, however often this is tried with the same id."
    command = click.option("--request-id", metavar="ID", help=text)(command)
    text = "Refuse when the record's version is another."
    return click.option("--if-version", metavar="VERSION", help=text)(command)


def assignments(schema: Schema, pairs: Sequence[str]) -> dict[str, Any]:
    """Values of `field=text`, read as the field's type reads a cell, and of `field:=json`, taken as it is."""
    values: dict[str, Any] = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign:
            raise click.UsageError(f"{pair!r} is no field=value")
        if name.endswith(":"):
            name = name[:-1]
            from refold_adapters.json_records import parse

            try:
                value = parse(text)
            except ValueError as error:
                raise click.UsageError(f"{pair!r}: not JSON: {error}") from None
        else:
            value = parsed(schema, name, text)
        if name in values:
            raise click.UsageError(f"field {name!r} is given twice")
        values[name] = value
    return values


def parsed(schema: Schema, name: str, text: str) -> Any:
    """A text as the field's type reads it; nothing is null where the field allows it. Raises `ValueRefused`."""
    from refold.values import Refused, show

    field = schema.collection.fields.get(name)
    if field is None:
        raise FieldUnknown(schema.name, name, list(schema.columns))
    if not text and field.null:
        return None
    try:
        return schema.types[name].parse(text)
    except Refused as error:
        raise ValueRefused(schema.name, name, str(error), show(text)) from None


def json_object(text: str) -> Mapping[str, Any]:
    """The record that a JSON argument, or - for stdin, holds."""
    from refold_adapters.json_records import parse

    try:
        value = parse(sys.stdin.read() if text == "-" else text)
    except ValueError as error:
        raise click.UsageError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise click.UsageError("a JSON object is expected: field names and values")
    return value


against = click.option(
    "--against",
    "receipt",
    type=click.Path(path_type=Path),
    metavar="RECEIPT",
    help="Prove that what comes of it, or with no other option what is here, is what this receipt says.",
)

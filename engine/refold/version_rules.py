"""What a definition may say of its versions, and how its steps stand in the data of its event. Pure.

Steps stand under an entry for each field that they are about, `step:VERSION:NAME`, where NAME is the field's in the
version before (an added field's own): a list of steps without their version. So steps that replicas declared apart, for
different fields, are all there once both are known, as fields are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from .errors import DefinitionRefused
from .values import TYPES, Refused
from .versions import (
    Add,
    Convert,
    Drop,
    Path,
    Rename,
    Step,
    converted,
    followed,
    form_pattern,
    retired,
    roots,
    source,
    target,
)

if TYPE_CHECKING:
    from .schema import Collection, Field

STEP_PREFIX = "step:"
_VERSION = re.compile(r"([1-9][0-9]{0,8})(?:\.0)?")


def version_number(version: object) -> int | None:
    """The number of a version that is given so, or as a text such as `2` or `2.0`; None for anything else."""
    if isinstance(version, str):
        found = _VERSION.fullmatch(version)
        return int(found[1]) if found is not None else None
    return version if isinstance(version, int) and not isinstance(version, bool) and version > 0 else None


def known_versions(version: int) -> list[str]:
    """The versions up to one, as messages name them."""
    return [str(number) for number in range(1, version + 1)]


def of_versions(collection: Collection) -> Collection:
    """A collection with its version as a number, the version of each step, and the defaults that steps add.

    Raises `DefinitionRefused`.
    """
    version = version_number(collection.version)
    if version is None:
        raise DefinitionRefused(
            collection.name, f"version counts 1, 2, 3 (or 1.0, 2.0, 3.0); {collection.version!r} is none"
        )
    steps = [_placed(collection.name, step, version) for step in collection.steps]
    steps.sort(key=lambda step: step.version)
    if version == collection.version and not steps:
        return collection
    fields = dict(collection.fields)
    for index, step in enumerate(steps):
        if isinstance(step, Add) and step.default is not None:
            name, default = _added(step, steps[index + 1 :])
            if name in fields and fields[name].default is None:
                fields[name] = msgspec.structs.replace(fields[name], default=default)
    return msgspec.structs.replace(collection, version=version, steps=steps, fields=fields)


def _placed(name: str, step: object, version: int) -> Step:
    try:
        made: Step = msgspec.convert(step, type=Step)  # type: ignore[arg-type, unused-ignore]
    except (msgspec.ValidationError, TypeError) as error:
        raise DefinitionRefused(name, f"step {step!r}: {error}") from None
    return made if made.version else msgspec.structs.replace(made, version=version)


def _added(step: Add, later: Sequence[Step]) -> tuple[str, Any]:
    """The name and the default that an added field has after later steps; no name if it was dropped."""
    path = followed(step.field, later)
    default = step.default
    for convert in path.conversions:
        try:
            default = converted(convert, default)
        except (Refused, ValueError, TypeError):
            default = convert.otherwise
    return path.name or "", default


def check_steps(collection: Collection) -> None:
    """Raises `DefinitionRefused` for steps that make no sense by themselves, or beside the fields they lead to."""
    refuse = partial(DefinitionRefused, collection.name)
    gone: set[str] = set()
    given: set[str] = set()
    for step in collection.steps:
        if not 2 <= step.version <= collection.version:
            raise refuse(f"{_say(step)} leads to version {step.version}; steps lead to 2 up to {collection.version}")
        before, after = source(step), target(step)
        if before in gone and not isinstance(step, Add):
            raise refuse(f"{_say(step)}: there is no field {before!r} any more")
        if after is not None and (after in gone or (isinstance(step, Add | Rename) and after in given)):
            raise refuse(f"{_say(step)}: {after!r} had another meaning before, and a name never gets a second one")
        if after != before:
            gone.add(before)
        if after is not None:
            given.add(after)
    for name in sorted(gone & collection.fields.keys()):
        raise refuse(f"field {name!r} was taken away by a step")
    for name in sorted(given - gone - collection.fields.keys()):
        raise refuse(f"a step leads to {name!r}, which is no field")
    for index, step in enumerate(collection.steps):
        match step:
            case Convert():
                _check_convert(collection, step, followed(step.field, collection.steps[index + 1 :]), refuse)
            case Add():
                _check_add(collection, step, collection.steps[index + 1 :], refuse)
            case _:
                pass


def _say(step: Step) -> str:
    """A step as messages name it."""
    return f"step {type(step).__name__.lower()} {source(step)!r}"


def _check_convert(collection: Collection, step: Convert, path: Path, refuse: partial[DefinitionRefused]) -> None:
    if step.to not in TYPES:
        raise refuse(f"{_say(step)}: types are {', '.join(TYPES)}, not {step.to!r}")
    try:
        if step.form is not None:
            form_pattern(step.form)
            if step.to not in {"date", "datetime"}:
                raise Refused("a form is for dates and times")
        for text in step.mapping:
            converted(step, text)
        if step.otherwise is not None and TYPES[step.to].store(step.otherwise) != step.otherwise:
            raise Refused(f"otherwise is {step.otherwise!r}, which is not spelt as it is stored")
    except (Refused, ValueError, TypeError) as error:
        raise refuse(f"{_say(step)}: {error}") from None
    name = path.name
    field = collection.fields.get(name) if name is not None else None
    if name == collection.key:
        raise refuse(f"{_say(step)}: a key is never converted")
    if field is None:
        return
    if step.otherwise is None and not field.null:
        raise refuse(f"{_say(step)}: name what it is otherwise, or let {name!r} be null")
    if not path.conversions and step.to != field.type:
        raise refuse(f"{_say(step)} leads to {step.to}, and field {name!r} is {field.type}")


def _check_add(collection: Collection, step: Add, later: Sequence[Step], refuse: partial[DefinitionRefused]) -> None:
    name, default = _added(step, later)
    if not name:
        return
    field = collection.fields[name]
    if default is not None and field.default != default:
        raise refuse(f"{_say(step)} has default {default!r}, and field {name!r} has {field.default!r}")
    if field.default is None and not field.null:
        raise refuse(f"a new field must allow null or have a default: {name!r} does neither")


def joined_steps(old: Collection, new: Collection) -> list[Step]:
    """The steps of two definitions of a collection, the second made knowing the first.

    Raises `DefinitionRefused` where the second has others for a version that the first has.
    """
    known, asked = roots(old.steps), roots(new.steps)
    for (version, root), steps in sorted(asked.items()):
        if version <= old.version and known.get((version, root)) != steps:
            raise DefinitionRefused(
                new.name, f"version {version} is known and does otherwise with {root!r}; declare a further version"
            )
    return [*old.steps, *(step for step in new.steps if step.version > old.version)]


def carried(old: Collection, new: Collection) -> Collection:
    """A definition as the further versions of `new` make it: its fields with their new names and types, and its key.

    Raises `DefinitionRefused` for steps about fields that it does not have.
    """
    refuse = partial(DefinitionRefused, old.name)
    fields = dict(old.fields)
    key = old.key
    for step in new.steps:
        if step.version <= old.version:
            continue
        before, after = source(step), target(step)
        if before not in fields and not isinstance(step, Add):
            raise refuse(f"{_say(step)}: it has no field {before!r}")
        if isinstance(step, Add | Rename) and after in fields:
            raise refuse(f"{_say(step)}: it has a field {after!r}")
        match step:
            case Rename():
                fields = {step.new if name == step.old else name: field for name, field in fields.items()}
                key = step.new if key == step.old else key
            case Drop():
                del fields[step.field]
            case Convert():
                fields[step.field] = _converted(fields[step.field], step)
            case Add():
                pass
        if key not in fields:
            raise refuse(f"{_say(step)}: the key stays")
    return msgspec.structs.replace(old, fields=fields, key=key)


def _converted(field: Field, step: Convert) -> Field:
    """A field once it is converted, as far as that says."""
    return msgspec.structs.replace(field, type=step.to, pattern=None, default=None, strategy=None)


def step_entries(steps: Iterable[Step]) -> dict[str, list[dict[str, Any]]]:
    """Steps as entries of a definition's data."""
    return {
        f"{STEP_PREFIX}{version}:{root}": [
            {name: value for name, value in msgspec.to_builtins(step).items() if name != "version"} for step in found
        ]
        for (version, root), found in sorted(roots(steps).items())
    }


def steps_of(data: Mapping[str, Any]) -> list[Step]:
    """The steps that a definition's data declare. Raises ValueError for data of another making."""
    found: list[tuple[int, str, list[Step]]] = []
    for name, told in data.items():
        if name.startswith(STEP_PREFIX):
            version, _, root = name.removeprefix(STEP_PREFIX).partition(":")
            steps = msgspec.convert(told, list[Step])
            found.append((int(version), root, [msgspec.structs.replace(step, version=int(version)) for step in steps]))
    found.sort(key=lambda one: one[:2])
    return [step for _, _, steps in found for step in steps]


def names_gone(steps: Sequence[Step], version: int) -> set[str]:
    """The names that steps up to a version took away."""
    return retired([step for step in steps if step.version <= version])

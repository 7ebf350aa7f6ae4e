"""Schema versions: the steps that lead from one version of a collection to the next, and reading what older ones wrote.

A step adds a field, renames one, drops one, or converts one to another type. Steps are part of the definition, so they
are in the log; events are never rewritten. What was written under an older version is read through the steps to the
current one each time: names are followed, values converted. That is a function of the event and the definition alone,
so a write of an old version that comes late is read like one that was there before, and everything behind (strategies,
conflicts, unique values, references, blame) works on current names.

Two writes of one field may bear different names, if they are of different versions; which of them had seen the other is
in the state (see `refold.fold.Lineage`), so a renamed field is one field and not two. For that to hold, a name that a
step took away never comes back with another meaning (see `refold.schema.check_steps`).

What a conversion cannot read is not lost: the field has what the step names for that case, or null, and the value as it
was written is kept in sight by an open conflict (see `refold.conversions`).

A write of a version that no definition here declares, from a replica that is ahead, is left as it is: fields that are
known by that name are shown, and the others are kept until their definition comes. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from .events import Event
from .fold import Lineage, State, Write
from .values import TYPES, Refused


class Add(msgspec.Struct, frozen=True, tag="add", tag_field="step", omit_defaults=True, forbid_unknown_fields=True):
    """A field that is new; `default` (as stored) is what records have that were written before."""

    field: str
    default: Any = None
    version: int = 0


class Rename(
    msgspec.Struct, frozen=True, tag="rename", tag_field="step", omit_defaults=True, forbid_unknown_fields=True
):
    """A field has another name from now on."""

    old: str
    new: str
    version: int = 0


class Drop(msgspec.Struct, frozen=True, tag="drop", tag_field="step", omit_defaults=True, forbid_unknown_fields=True):
    """A field is not shown any more. Its values stay in the log."""

    field: str
    version: int = 0


class Convert(
    msgspec.Struct, frozen=True, tag="convert", tag_field="step", omit_defaults=True, forbid_unknown_fields=True
):
    """A field has another type from now on.

    `mapping` gives values (as stored, or as their text) by the text of what was written; what it does not name is
    converted by type, see `converted`. `form` says how texts spell a date or time, as `%d.%m.%Y`, where that is not
    RFC 3339. `otherwise` (as stored) is what the field has where its value cannot be converted; null if it is None.
    """

    field: str
    to: str
    mapping: dict[str, Any] = {}
    form: str | None = None
    otherwise: Any = None
    version: int = 0


Step = Add | Rename | Drop | Convert


def source(step: Step) -> str:
    """The name that the field of a step has before it; that of an added one after it."""
    return step.old if isinstance(step, Rename) else step.field


def target(step: Step) -> str | None:
    """The name that the field of a step has after it; None for one that is dropped."""
    match step:
        case Rename():
            return step.new
        case Drop():
            return None
        case _:
            return step.field


def roots(steps: Iterable[Step]) -> dict[tuple[int, str], list[Step]]:
    """The steps by their version and the name that their field had in the version before, each in their order."""
    found: dict[tuple[int, str], list[Step]] = {}
    names: dict[tuple[int, str], str] = {}
    for step in steps:
        root = names.pop((step.version, source(step)), source(step))
        found.setdefault((step.version, root), []).append(step)
        after = target(step)
        if after is not None:
            names[step.version, after] = root
    return found


def retired(steps: Sequence[Step]) -> set[str]:
    """The names that steps took away."""
    gone: set[str] = set()
    by_root = roots(steps)
    for version in sorted({version for version, _ in by_root}):
        ends = {root: target(found[-1]) for (number, root), found in by_root.items() if number == version}
        gone |= {root for root, end in ends.items() if end != root}
        gone -= {end for end in ends.values() if end is not None}
    return gone


_FORM_PARTS = {
    "%d": "(?P<d>[0-9]{1,2})",
    "%m": "(?P<m>[0-9]{1,2})",
    "%Y": "(?P<Y>[0-9]{4})",
    "%H": "(?P<H>[0-9]{2})",
    "%M": "(?P<M>[0-9]{2})",
    "%S": "(?P<S>[0-9]{2})",
}


def form_pattern(form: str) -> re.Pattern[str]:
    """What texts of a form look like. Raises `Refused`; %d, %m and %Y have to be in it, %H, %M and %S may be."""
    pieces = re.split(r"(%.?)", form)
    unknown = [piece for piece in pieces[1::2] if piece not in _FORM_PARTS]
    if unknown or len(set(pieces[1::2])) != len(pieces[1::2]) or not {"%d", "%m", "%Y"} <= set(pieces):
        raise Refused(f"form {form!r} has each of %d, %m and %Y once, and may have %H, %M and %S")
    return re.compile("".join(_FORM_PARTS.get(piece) or re.escape(piece) for piece in pieces))


def _by_form(value: str, form: str, to: str) -> str:
    found = form_pattern(form).fullmatch(value)
    if found is None:
        raise Refused(f"it is not spelt {form}")
    part = found.groupdict(default="00")
    day = f"{part['Y']}-{int(part['m']):02}-{int(part['d']):02}"
    hour, minute, second = (part.get(name, "00") for name in "HMS")
    return day if to == "date" else f"{day}T{hour}:{minute}:{second}Z"


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else TYPES["json"].text(value)


def _as_int(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return TYPES["int"].parse(value) if isinstance(value, str) else value


def _as_decimal(value: Any) -> Any:
    return repr(value) if isinstance(value, float) else value


def _as_bool(value: Any) -> Any:
    if not isinstance(value, bool) and value in (0, 1):
        return bool(value)
    return TYPES["bool"].parse(value) if isinstance(value, str) else value


def _as_time(value: Any) -> Any:
    return f"{value}T00:00:00Z" if isinstance(value, str) and len(value) == 10 else value


_READY: dict[str, Callable[[Any], Any]] = {
    "str": _as_text,
    "int": _as_int,
    "float": lambda value: TYPES["float"].parse(value) if isinstance(value, str) else value,
    "bool": _as_bool,
    "decimal": _as_decimal,
    "datetime": _as_time,
}


def converted(step: Convert, value: Any) -> Any:
    """A stored value as a field of the step's type holds it. Raises `Refused` for one that it cannot be converted to.

    A text becomes a number, truth value, date or time that it spells; whole numbers and 0 or 1 become each other's
    types where that is exact; a date becomes the time at which it begins in UTC; anything becomes a text or json.
    """
    if value is None:
        return None
    text = _as_text(value)
    if text in step.mapping:
        value = step.mapping[text]
    elif step.form is not None and isinstance(value, str) and step.to in {"date", "datetime"}:
        value = _by_form(value, step.form, step.to)
    ready = _READY.get(step.to)
    return TYPES[step.to].store(ready(value) if ready is not None else value)


class Path(NamedTuple):
    """What becomes of a field between two versions: its name, None for one that is dropped, and its conversions."""

    name: str | None
    conversions: tuple[Convert, ...] = ()


class Aside(NamedTuple):
    """A value that could not be read: the field, its write's time, replica and seq, and the value as it was written."""

    field: str
    time: int
    replica: str
    seq: int
    value: Any


def _onward(path: Path, steps: Iterable[Step]) -> Path:
    for step in steps:
        if isinstance(step, Convert):
            path = Path(path.name, (*path.conversions, step))
        elif not isinstance(step, Add):
            path = Path(target(step), path.conversions)
    return path


def followed(name: str, steps: Iterable[Step]) -> Path:
    """What becomes of a field in a run of steps, in their order."""
    path = Path(name)
    for step in steps:
        if path.name is not None and source(step) == path.name:
            path = _onward(path, [step])
    return path


class Upgrade:
    """The steps of a collection, compiled: reads what older versions wrote as the current one, `version`, has it."""

    def __init__(self, version: int, steps: Sequence[Step]) -> None:
        self.version = version
        self.steps = [step for step in steps if step.version <= version]
        by_root = roots(step for step in steps if step.version <= version)
        changed: dict[int, dict[str, list[Step]]] = {}
        for (number, root), found in by_root.items():
            if any(not isinstance(step, Add) for step in found):
                changed.setdefault(number, {})[root] = found
        self._paths: dict[int, dict[str, Path]] = {}
        later: dict[str, Path] = {}
        for number in sorted(changed, reverse=True):
            own = {root: _onward(Path(root), found) for root, found in changed[number].items()}
            before = {name: path for name, path in later.items() if name not in own}
            for root, path in own.items():
                after = later.get(path.name, Path(path.name)) if path.name is not None else path
                before[root] = Path(after.name, path.conversions + after.conversions)
            self._paths[number - 1] = later = before
        self._since = sorted(self._paths)

    def paths(self, version: int) -> Mapping[str, Path]:
        """What becomes of the fields of a version; those that stay as they are are left out."""
        following = next((number for number in self._since if number >= version), None)
        return self._paths[following] if following is not None else {}

    def name(self, field: str, version: int = 1) -> str | None:
        """The current name of a field of a version; None for one that was dropped."""
        return self.paths(version).get(field, Path(field)).name

    def data(
        self, version: int, data: Mapping[str, Any], refuse: Callable[[str, Any, str], None] = lambda *told: None
    ) -> dict[str, Any]:
        """What a write of a version says in terms of the current one.

        `refuse` is told of each value that cannot be read: the field, the value, and why. Where one write has a field
        under its old and its new name, as a merged definition may let it, the new one counts.
        """
        paths = self.paths(version)
        if paths.keys().isdisjoint(data):
            return dict(data)
        read = {name: value for name, value in data.items() if name not in paths}
        for name in sorted(paths.keys() & data.keys()):
            path, value = paths[name], data[name]
            if path.name is None:
                continue
            if path.name in read:
                refuse(path.name, value, f"{path.name!r} was written as well")
                continue
            read[path.name] = value
            for step in path.conversions:
                try:
                    read[path.name] = converted(step, read[path.name])
                except (Refused, ValueError, TypeError, ArithmeticError, RecursionError) as error:
                    read[path.name] = step.otherwise
                    refuse(path.name, value, str(error))
                    break
        return read

    def event(self, event: Event) -> Event:
        """An event with its data in terms of the current version: to be settled, never to be hashed or stored."""
        if event.version >= self.version or not event.key:
            return event
        return msgspec.structs.replace(event, data=self.data(event.version, event.data), version=self.version)

    def state(self, state: State) -> State:
        """A record's state in terms of the current version. One that is so already is returned as it is."""
        return self.read(state)[0]

    def asides(self, state: State) -> list[Aside]:
        """The values that stand in a record's state and could not be read."""
        return self.read(state)[1]

    def read(self, state: State) -> tuple[State, list[Aside]]:
        """Both."""
        versions = state.versions()
        if min(versions, default=self.version) >= self.version:
            return state, []
        refused: list[Aside] = []
        read: list[dict[str, Any]] = []
        for write, version in zip(state.writes, versions, strict=True):

            def refuse(field: str, value: Any, _why: str, write: Write = write) -> None:
                refused.append(Aside(field, write.time, write.replica, write.seq, value))

            read.append(self.data(version, write.data, refuse))
        overruled = self._overruled(state, read)
        writes, lineage = [], []
        for write, version, data in zip(state.writes, versions, read, strict=True):
            gone = overruled.get((write.replica, write.seq), set())
            left = {name: value for name, value in data.items() if name not in gone}
            if left or write.present is not None:
                writes.append(Write(write.time, write.replica, write.seq, write.present, left))
                lineage.append(Lineage(max(version, self.version)))
        standing = [one for one in refused if one.field not in overruled.get((one.replica, one.seq), ())]
        return State(state.version, writes, lineage), standing

    def _overruled(self, state: State, read: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], set[str]]:
        """The fields of each write that a write of another version wrote again, having seen it."""
        found: dict[tuple[str, int], set[str]] = {}
        for lineage, data in zip(state.lineage or (), read, strict=False):
            for dot in lineage.seen:
                found.setdefault((dot[0], dot[1]), set()).update(data)
        return found


def upgrade_of(version: int, steps: Sequence[Step]) -> Upgrade | None:
    """The steps compiled; None where they change nothing that was written."""
    effective = [step for step in steps if step.version <= version and not isinstance(step, Add)]
    return Upgrade(version, steps) if effective else None

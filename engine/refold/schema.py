"""Collections: what a kind of record looks like, where its folder is, how its conflicts are settled.

A `Collection` is plain data; a `Schema` is the same thing compiled for use. Definitions are events: `to_data` spreads a
collection over one entry a field, so that two replicas which add different fields apart merge like any other record,
and `from_data` reads it back. `evolve` says what one definition may become: fields come, rules are relaxed, the folder
and the policy change, but what a stored value means never does. What a new version does to fields that are there, it
says by steps (see `refold.versions`).
"""

from __future__ import annotations

import re
import tomllib
import types
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from functools import partial
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import msgspec

from .conflict import FIELD_STRATEGIES, STRATEGIES, Policy
from .errors import DefinitionRefused, FieldUnknown, SchemaVersionUnknown, ValueRefused
from .events import Event
from .fold import State
from .template import FolderTooLong, NotADate, Template, TemplateError
from .values import TYPES, Refused, show
from .version_rules import (
    carried,
    check_steps,
    joined_steps,
    known_versions,
    of_versions,
    step_entries,
    steps_of,
    version_number,
)
from .versions import Step, Upgrade, retired, upgrade_of

T = TypeVar("T", bound=type)

PRIORITIES = ("low", "normal", "high", "critical")
"""How urgent a collection's records are to whoever pulls them, least first."""

KEY_TYPES = {"str", "int", "date", "datetime"}
KEY_LIMIT = 1000
_NAME = re.compile(r"[^\W\d][\w-]{0,63}")
_FIELD_PREFIX = "field:"
_META_NAMES = {"format", "checksum", "file_size", "exported_at", "folder", "collections", "vector", "events"}
MISSING = ("conflict", "refuse")
"""What becomes of a reference to a record that is not there: an open conflict, or a refused write."""

_FITTING = {"sum": ("int", "float", "decimal"), "union": ("json",)}


class Field(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One field of a collection: its type and its rules.

    `null` allows null, `required` forbids the empty text too, `pattern` is a regular expression that the text must
    contain, `default` (as stored) is what a record has that was written before the field was added, `strategy` settles
    this field's conflicts in place of the collection's, `references` names the collection whose key it holds. Two more
    rules hold for what is written here, and are open conflicts where replicas broke them apart: with `missing` as
    `refuse`, a reference must lead to a record that is there; with `unique`, no two records may hold the same value.
    """

    type: str
    null: bool = False
    required: bool = False
    pattern: str | None = None
    default: Any = None
    strategy: str | None = None
    references: str | None = None
    missing: str = "conflict"
    unique: bool = False


class Collection(msgspec.Struct, frozen=True, kw_only=True):
    """A named kind of record. `neutralise` keeps spreadsheets from running its CSV cells as formulas.

    `meta` has entries of a folder's meta.json for readers of an older format: by name a text, or `{field}` for the
    value that the folder's first record has there. `schema_version` may be among them. `priority` says how urgent the
    records are to clients that pull them. `documents` has by each field that holds the path of a file, from the
    archive's root, the field that holds its SHA-256 in hexadecimal digits, or nothing where none does.

    `version` counts from 1, or is a text such as "2.0"; `steps` lead to it and to those before it, a step without a
    version of its own to this one. `check` gives both in their final spelling.
    """

    name: str
    key: str
    fields: dict[str, Field]
    folder: str = ""
    strategy: str = "last-write-wins"
    version: int = 1
    neutralise: bool = True
    meta: dict[str, str] = {}
    priority: str = "normal"
    documents: dict[str, str] = {}
    steps: list[Step] = []


Apart = Mapping[str, Sequence[Field]]
NOWHERE: Apart = {}
"""Of a collection on which all replicas agree."""


def parse_field(spec: object) -> Field:
    """A field from its short form `"float?"` or its long form `{"type": "date", "required": True}`.

    Raises ValueError (of which `msgspec.ValidationError` is one) for anything else.
    """
    field = Field(spec) if isinstance(spec, str) else msgspec.convert(spec, Field)
    if field.type.endswith("?"):
        field = msgspec.structs.replace(field, type=field.type[:-1], null=True)
    return field


def _check_rules(name: str, field: Field, refuse: Callable[[str], DefinitionRefused]) -> None:
    if field.missing not in MISSING:
        raise refuse(f"field {name!r} has missing {field.missing!r}; there are {', '.join(MISSING)}")
    if field.missing != MISSING[0] and field.references is None:
        raise refuse(f"field {name!r} refers to no collection, so nothing can be missing")
    if field.unique and field.default is not None:
        raise refuse(f"field {name!r} cannot be unique and have a default, which every record would hold")


def _check_field(collection: Collection, name: str, field: Field) -> None:
    refuse = partial(DefinitionRefused, collection.name)
    if not name or len(name) > 100 or not name.isprintable() or name.startswith("_refold"):
        raise refuse(f"{name!r} cannot be a field's name")
    if field.type not in TYPES:
        raise refuse(f"field {name!r} has type {field.type!r}; types are {', '.join(TYPES)}")
    if field.pattern is not None:
        if field.type != "str":
            raise refuse(f"field {name!r}: only text can have a pattern")
        try:
            re.compile(field.pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise refuse(f"field {name!r}: pattern {field.pattern!r}: {error}") from None
    if field.strategy is not None and field.strategy not in FIELD_STRATEGIES:
        raise refuse(f"field {name!r} has strategy {field.strategy!r}; there are {', '.join(FIELD_STRATEGIES)}")
    fitting = _FITTING.get(field.strategy or "")
    if fitting is not None and field.type not in fitting:
        raise refuse(f"field {name!r}: strategy {field.strategy} is for {' and '.join(fitting)}, not for {field.type}")
    try:
        if field.default is not None:
            TYPES[field.type].store(field.default)
        for text in (field.pattern, field.references):
            TYPES["str"].store(text or "")
    except Refused as error:
        raise refuse(f"field {name!r}: {error}") from None
    _check_rules(name, field, refuse)
    if field.required and field.null:
        raise refuse(f"field {name!r} cannot be required and null")


def _check_meta(collection: Collection) -> None:
    for name, text in collection.meta.items():
        used = meta_field(text)
        if name in _META_NAMES or not name.isprintable() or not text.isprintable():
            raise DefinitionRefused(collection.name, f"meta {name!r} cannot be an entry of meta.json")
        if used is not None and used not in collection.fields:
            raise DefinitionRefused(collection.name, f"meta {name!r} uses {used!r}, which is no field")


def _check_documents(collection: Collection) -> None:
    refuse = partial(DefinitionRefused, collection.name)
    for path, hashed in collection.documents.items():
        for name in (path, hashed) if hashed else (path,):
            field = collection.fields.get(name)
            if field is None or field.type != "str":
                raise refuse(f"documents uses {name!r}, which is no field of text")
    names = [name for pair in collection.documents.items() for name in pair if name]
    if len(set(names)) != len(names):
        raise refuse("documents uses a field for two things")


def check(collection: Collection) -> Collection:
    """The collection once it makes sense, its versions spelt out. Raises `DefinitionRefused`."""
    collection = _check_fields(of_versions(collection))
    check_steps(collection)
    return collection


def _check_fields(collection: Collection) -> Collection:
    """The collection once all but its steps makes sense: steps of replicas that differ are as they came together."""
    refuse = partial(DefinitionRefused, collection.name)
    if not _NAME.fullmatch(collection.name) or collection.name.lower().startswith(("sqlite_", "_refold")):
        raise refuse("a name is a letter, then up to 63 letters, digits, _ or -, and does not start with sqlite_")
    if len({name.casefold() for name in collection.fields}) != len(collection.fields):
        raise refuse("two fields differ in case alone, which SQL tools cannot tell apart")
    if len(collection.fields) > 1000:
        raise refuse("it has more than 1000 fields")
    for name, field in collection.fields.items():
        _check_field(collection, name, field)
    key = collection.fields.get(collection.key)
    if key is None or key.type not in KEY_TYPES or key.null:
        kinds = " or ".join(sorted(KEY_TYPES))
        raise refuse(f"the key {collection.key!r} must be one of its fields, not null, of type {kinds}")
    if collection.strategy not in STRATEGIES:
        raise refuse(f"strategy {collection.strategy!r} is none of {', '.join(STRATEGIES)}")
    if collection.priority not in PRIORITIES:
        raise refuse(f"priority {collection.priority!r} is none of {', '.join(PRIORITIES)}")
    try:
        template = Template.parse(collection.folder)
    except TemplateError as error:
        raise refuse(f"folder {collection.folder!r}: {error}") from None
    for name in template.fields:
        if name not in collection.fields:
            raise refuse(f"folder {collection.folder!r} uses {name!r}, which is no field")
    _check_meta(collection)
    _check_documents(collection)
    return collection


def meta_field(text: str) -> str | None:
    """The field that an entry of `Collection.meta` takes its value from; None for a text that stands for itself."""
    return text[1:-1] if text.startswith("{") and text.endswith("}") else None


def evolve(old: Collection | None, new: Collection, apart: Apart = NOWHERE) -> Collection:
    """What the definition is after `new` has been defined over `old`. Fields that `new` leaves out stay.

    A field that replicas defined apart (`apart`) stays as it is merged when it is asked for as one of them defined it,
    so that an application that defines at each start what it always did can start.

    One of an older version adds fields that are not known and changes nothing else, so that an application of then can
    start.

    Raises `DefinitionRefused` when stored values would change their meaning or could break a new rule.
    """
    new = check(new)
    refuse = partial(DefinitionRefused, new.name)
    keeping = "keep-both" in {new.strategy, *(field.strategy for field in new.fields.values())}
    if keeping and new.fields[new.key].type != "str":
        raise refuse(f"strategy keep-both needs a key that is text, and {new.key!r} is none")
    if old is None:
        return new
    known = check(old)
    steps = joined_steps(known, new)
    if new.version < old.version:
        return _with_older(known, new)
    old = carried(known, new)
    if new.key != old.key:
        raise refuse(f"the key is {old.key!r} and cannot become {new.key!r}")
    fields = dict(old.fields)
    for name, field in new.fields.items():
        before = fields.get(name)
        if before is None:
            if name in retired(steps):
                raise refuse(f"{name!r} is the name of a field that a step took away, and cannot come back")
            if not field.null and field.default is None:
                raise refuse(f"a new field must allow null or have a default: {name!r} does neither")
        elif _is_side(field, before, apart.get(name, ())):
            continue
        elif before.type != field.type:
            raise refuse(f"field {name!r} has type {before.type} and cannot become {field.type}")
        elif before.null and not field.null:
            raise refuse(f"field {name!r} may be null in existing records")
        fields[name] = field
    return check(msgspec.structs.replace(new, fields=fields, steps=steps))


def _with_older(known: Collection, older: Collection) -> Collection:
    """A definition with the fields besides that one of an older version has and no step took away."""
    upgrade = Upgrade(known.version, known.steps)
    fields = dict(known.fields)
    for name, field in older.fields.items():
        now = upgrade.name(name, older.version)
        if now is None or now in fields:
            continue
        if not field.null and field.default is None:
            raise DefinitionRefused(known.name, f"a new field must allow null or have a default: {name!r} does neither")
        fields[now] = field
    return check(msgspec.structs.replace(known, fields=fields))


def _is_side(field: Field, merged: Field, sides: Sequence[Field]) -> bool:
    """Whether a field is asked for as one of the replicas defined it that disagree."""
    return field in sides or (field.type != merged.type and any(field.type == side.type for side in sides))


def to_data(collection: Collection) -> dict[str, Any]:
    """A definition as the data of an event: one entry a property and one a field."""
    names = ("key", "folder", "strategy", "version", "neutralise", "meta", "priority", "documents")
    data: dict[str, Any] = {name: getattr(collection, name) for name in names}
    for order, (name, field) in enumerate(collection.fields.items()):
        data[_FIELD_PREFIX + name] = {**msgspec.to_builtins(field), "order": order}
    return data | step_entries(collection.steps)


def from_data(name: str, data: Mapping[str, Any]) -> Collection:
    """The collection whose definition folds to `data`."""
    specs = [(spec["order"], text, spec) for text, spec in data.items() if text.startswith(_FIELD_PREFIX)]
    fields = {
        text.removeprefix(_FIELD_PREFIX): parse_field({k: v for k, v in spec.items() if k != "order"})
        for _, text, spec in sorted(specs, key=lambda item: item[:2])
    }
    plain = {text: value for text, value in data.items() if ":" not in text}
    return msgspec.convert({**plain, "name": name, "fields": fields, "steps": steps_of(data)}, Collection)


_PYTHON_TYPES: dict[object, str] = {
    **{kind: kind.__name__ for kind in (str, int, float, bool, bytes, date, datetime)},
    Decimal: "decimal",
}


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _field_of(annotation: Any, default: Any) -> Field:
    null = False
    annotation = _bare(annotation)
    if get_origin(annotation) in {Union, types.UnionType}:
        members = [member for member in get_args(annotation) if member is not type(None)]
        null = len(members) < len(get_args(annotation))
        annotation = _bare(members[0]) if len(members) == 1 else object
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        annotation = str if all(isinstance(member.value, str) for member in annotation) else object
    kind = _PYTHON_TYPES.get(annotation, "json")
    stored = None if default in {msgspec.NODEFAULT, None} else TYPES[kind].store(default)
    return Field(kind, null=null, default=stored)


def from_struct(struct: type[msgspec.Struct], name: str, **options: Any) -> Collection:
    """The collection whose records are values of `struct`; `options` are the other fields of `Collection`."""
    fields = {}
    overrides = options.pop("fields", {})
    for info in msgspec.structs.fields(struct):
        try:
            plain = isinstance(info.default, str | int | float | date | Decimal | bytes)
            fields[info.encode_name] = _field_of(info.type, info.default if plain else None)
        except Refused as error:
            raise DefinitionRefused(name, f"default of {info.name!r}: {error}") from None
    fields |= {field: parse_field(spec) for field, spec in overrides.items()}
    return check(Collection(name=name, fields=fields, **options))


def collection(name: str, *, key: str, folder: str = "", **options: Any) -> Callable[[T], T]:
    """A class decorator: records of the collection `name` are values of this `msgspec.Struct`.

    `options` are the other fields of `Collection`; `fields={"total": {"strategy": "sum", "type": "float"}}` overrides
    what the annotations say. Raises `DefinitionRefused`.
    """

    def decorate(struct: T) -> T:
        struct.__refold_collection__ = from_struct(struct, name, key=key, folder=folder, **options)  # type: ignore[attr-defined]
        return struct

    return decorate


def collection_of(struct: type) -> Collection:
    """The collection that a decorated class stands for. Raises TypeError for any other class."""
    found = struct.__dict__.get("__refold_collection__")
    if not isinstance(found, Collection):
        raise TypeError(f"{struct.__name__} is not decorated with @refold.collection")
    return found


def name_of(collection: str | type) -> str:
    """The name of a collection that is given so, or as its decorated class. Raises TypeError for any other class."""
    return collection if isinstance(collection, str) else collection_of(collection).name


def from_toml(text: str) -> list[Collection]:
    """The collections that a TOML document defines under `[collections.NAME]`. Raises `DefinitionRefused`."""
    try:
        tables = tomllib.loads(text).get("collections", {})
    except (ValueError, RecursionError) as error:  # not all that tomllib refuses is a TOMLDecodeError
        raise DefinitionRefused("", f"not TOML: {error}") from None
    if not isinstance(tables, dict) or not tables:
        raise DefinitionRefused("", "the document defines no [collections.NAME]")
    return [_from_table(name, table) for name, table in tables.items()]


def _from_table(name: str, table: Any) -> Collection:
    try:
        table = dict(table)
        fields = {text: parse_field(spec) for text, spec in table.pop("fields", {}).items()}
        table["version"] = version_number(table.get("version", 1)) or table["version"]
        table["steps"] = [_numbered(step) for step in table.get("steps", [])]
        unknown = table.keys() - set(Collection.__struct_fields__)
        if unknown:
            raise ValueError(f"unknown setting {', '.join(sorted(unknown))}")
        return check(msgspec.convert({"fields": fields, **table, "name": name}, Collection))
    except DefinitionRefused:
        raise
    except (TypeError, ValueError, AttributeError) as error:
        raise DefinitionRefused(name, str(error)) from None


def _as_stored(value: Any) -> Any:
    """A Python value of some field type as it is stored, for a field whose type of then is not known any more."""
    for name in ("datetime", "date", "decimal", "bytes"):
        if isinstance(value, datetime | date | Decimal | bytes):
            try:
                return TYPES[name].store(value)
            except Refused:
                continue
    return value


def _numbered(step: Any) -> dict[str, Any]:
    """A step of a document with its version as a number; the rest is judged where it is converted."""
    told = dict(step)
    if "version" in told:
        told["version"] = version_number(told["version"]) or told["version"]
    return told


class Schema:
    """A collection compiled for use: checks, conversions and the folder of a record.

    `apart` holds, of each field that replicas define otherwise, how they do; `texts` are the fields that any text fits.
    """

    def __init__(self, collection: Collection, apart: Apart = NOWHERE) -> None:
        self.collection = collection = _check_fields(of_versions(collection))
        self.apart = apart
        self.name = collection.name
        self.version = collection.version
        self.upgrade: Upgrade | None = upgrade_of(collection.version, collection.steps)
        self.columns = tuple(collection.fields)
        self.template = Template.parse(collection.folder)
        self.types = {name: TYPES[field.type] for name, field in collection.fields.items()}
        self.policy = Policy(
            collection.strategy,
            {name: field.strategy for name, field in collection.fields.items() if field.strategy is not None},
            {name: field.type for name, field in collection.fields.items()},
        )
        self.blank = {
            name: None if field.default is None else self.types[name].store(field.default)
            for name, field in collection.fields.items()
        }
        self.references = {
            name: field.references for name, field in collection.fields.items() if field.references is not None
        }
        self.refusing = {
            name: target for name, target in self.references.items() if collection.fields[name].missing == "refuse"
        }
        self.unique = tuple(
            name for name, field in collection.fields.items() if field.unique and name != collection.key
        )
        self.keeps_both = self.types[collection.key].name == "str" and "keep-both" in {
            collection.strategy,
            *self.policy.fields.values(),
        }
        self._needed = [name for name, field in collection.fields.items() if not field.null]
        self._store = {name: self._gate(name, field) for name, field in collection.fields.items()}
        self.texts = {name for name, gate in self._store.items() if gate is TYPES["str"].store}
        self._load = {
            name: kind.load
            for name, kind in self.types.items()
            if kind.name not in {"str", "int", "float", "bool", "json"}
        }

    def _gate(self, name: str, field: Field) -> Callable[[Any], Any]:
        store = TYPES[field.type].store
        pattern = re.compile(field.pattern) if field.pattern is not None else None
        if pattern is None and not field.required and name != self.collection.key:
            return store

        def gate(value: Any) -> Any:
            stored = store(value)
            if pattern is not None and not pattern.search(stored):
                raise Refused(f"does not match {field.pattern}")
            if field.required and stored in ("", [], {}):
                raise Refused("is required")
            if name == self.collection.key and not 0 < len(str(stored).encode()) <= KEY_LIMIT:
                raise Refused(f"a key has 1 to {KEY_LIMIT} bytes")
            return stored

        return gate

    def store(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The stored spelling of some fields. Raises `ValueRefused` or `FieldUnknown`."""
        stored: dict[str, Any] = {}
        texts = self.texts
        for name, value in values.items():
            if type(value) is str and name in texts and value.isascii():
                stored[name] = value
                continue
            gate = self._store.get(name)
            if gate is None:
                raise FieldUnknown(self.name, str(name), list(self.columns))
            if value is None:
                if not self.collection.fields[name].null:
                    raise ValueRefused(self.name, name, "must not be null", "null")
                stored[name] = None
                continue
            try:
                stored[name] = gate(value)
            except Refused as error:
                raise ValueRefused(self.name, name, str(error), show(value)) from None
        return stored

    def whole(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """A new record from some of its fields: the others get their default. Raises `ValueRefused`."""
        record: dict[str, Any] = {**self.blank, **stored}
        for name in self._needed:
            if record[name] is None:
                raise ValueRefused(self.name, name, "is required", "nothing")
        return record

    def field_of(self, name: str) -> str | None:
        """The field that has this name, or had it in an earlier version; None for what is none, or was dropped."""
        if name in self.types or self.upgrade is None:
            return name if name in self.types else None
        later = (self.upgrade.name(name, version) for version in range(1, self.upgrade.version))
        return next((found for found in later if found != name and found in self.types), None)

    def read(self, state: State) -> State:
        """A record's state as this version has it; see `refold.versions`."""
        return state if self.upgrade is None else self.upgrade.state(state)

    def read_event(self, event: Event) -> Event:
        """An event as this version has it: to be settled, never to be hashed or stored."""
        return event if self.upgrade is None else self.upgrade.event(event)

    def store_as(self, values: Mapping[str, Any], version: int | str) -> dict[str, Any]:
        """The stored spelling of values that a caller spells as a version of the collection has them.

        Fields that were dropped since are kept as they are: they are written and not shown. Raises as `store`,
        `SchemaVersionUnknown` for a version that is not declared here, and `ValueRefused` for a value of an older one
        that cannot be converted.
        """
        number = version_number(version)
        if number is None or not 1 <= number <= self.version:
            raise SchemaVersionUnknown(self.name, str(version), known_versions(self.version))
        if self.upgrade is None or number == self.version:
            return self.store(values)

        def refuse(field: str, value: Any, why: str) -> None:
            raise ValueRefused(self.name, field, f"of version {number}: {why}", show(value))

        told = {name: _as_stored(value) for name, value in values.items()}
        dropped = {name: value for name, value in told.items() if self.upgrade.name(name, number) is None}
        for name, value in dropped.items():
            try:
                dropped[name] = TYPES["json"].store(value)
            except Refused as error:
                raise ValueRefused(self.name, name, str(error), show(value)) from None
        return dropped | self.store(self.upgrade.data(number, told, refuse))

    def key_text(self, key: Any) -> str:
        """The key as events hold it. Raises `ValueRefused`."""
        kind = self.types[self.collection.key]
        if isinstance(key, str) and kind.name == "int":
            try:
                return str(kind.parse(key))
            except Refused as error:
                raise ValueRefused(self.name, self.collection.key, str(error), show(key)) from None
        return str(self.store({self.collection.key: key})[self.collection.key])

    def load(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """The Python values of a record, every field in the order of the definition."""
        values = {name: stored.get(name, blank) for name, blank in self.blank.items()}
        for name, load in self._load.items():
            if values[name] is not None:
                try:
                    values[name] = load(values[name])
                except (TypeError, ValueError, ArithmeticError, AttributeError):
                    continue  # written where the field was defined otherwise: shown as it is stored
        return values

    def folder(self, stored: Mapping[str, Any]) -> str:
        """The record's folder, relative to the archive. Raises `ValueRefused` when its path is too long."""
        try:
            return self.template.folder({**self.blank, **stored})
        except (FolderTooLong, NotADate, TypeError, ValueError, AttributeError) as error:
            raise ValueRefused(self.name, self.template.fields[0], str(error), self.collection.folder) from None

"""Errors as part of the interface: one tree, a stable code, typed fields, a hint.

Each class is one idea. `.code` never changes once released; `.fields()` is what a program reads, `str()` what a
person reads, `.hint` what that person can do next. Messages are made from the fields, so the two cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar


@dataclass(eq=False)
class RefoldError(Exception):
    """The root of everything refold raises on purpose."""

    code: ClassVar[str] = "refold"
    message: ClassVar[str] = "refold failed"
    hint: ClassVar[str] = ""

    def __post_init__(self) -> None:
        self.args = tuple(getattr(self, field.name) for field in fields(self))

    def fields(self) -> dict[str, Any]:
        """The fields by name, as a program or a JSON document wants them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __str__(self) -> str:
        return self.message.format(**self.fields())


@dataclass(eq=False)
class ValueRefused(RefoldError):
    """A value that the field cannot hold exactly, or that breaks one of its rules."""

    code: ClassVar[str] = "value-refused"
    message: ClassVar[str] = "{collection}: field {field!r}: {why} (got {value})"
    hint: ClassVar[str] = "correct the value; nothing of this record was written"
    collection: str
    field: str
    why: str
    value: str


@dataclass(eq=False)
class FieldUnknown(RefoldError):
    """A field that the collection does not define."""

    code: ClassVar[str] = "field-unknown"
    message: ClassVar[str] = "{collection} has no field {field!r}; it has {known}"
    hint: ClassVar[str] = "correct the name, or add the field to the collection with define"
    collection: str
    field: str
    known: list[str]


@dataclass(eq=False)
class CollectionUnknown(RefoldError):
    """A collection that was never defined in this archive."""

    code: ClassVar[str] = "collection-unknown"
    message: ClassVar[str] = "no collection {collection!r}; defined are {known}"
    hint: ClassVar[str] = "define it first: engine.define(...) or `refold define FILE.toml`"
    collection: str
    known: list[str]


@dataclass(eq=False)
class DefinitionRefused(RefoldError):
    """A definition that is malformed, or that would change what existing records mean."""

    code: ClassVar[str] = "definition-refused"
    message: ClassVar[str] = "collection {collection!r}: {why}"
    hint: ClassVar[str] = "fields may be added and rules relaxed; keys and types of existing fields stay"
    collection: str
    why: str


@dataclass(eq=False)
class SchemaVersionUnknown(RefoldError):
    """A schema version that no definition here declares."""

    code: ClassVar[str] = "schema-version-unknown"
    message: ClassVar[str] = "{collection} has no version {version}; known are {known}"
    hint: ClassVar[str] = "bring the definition that declares it: sync with who has it, or `refold define`"
    collection: str
    version: str
    known: list[str]


@dataclass(eq=False)
class RecordUnknown(RefoldError):
    """A patch or delete of a record that is not there."""

    code: ClassVar[str] = "record-unknown"
    message: ClassVar[str] = "{collection} has no record {key!r}"
    hint: ClassVar[str] = "use put to create it"
    collection: str
    key: str


@dataclass(eq=False)
class RuleBroken(RefoldError):
    """A write that would break a rule between records."""

    code: ClassVar[str] = "rule-broken"
    collection: str
    key: str


@dataclass(eq=False)
class ReferenceMissing(RuleBroken):
    """A write of a reference to a record that is not there, where the field says that this is refused."""

    code: ClassVar[str] = "reference-missing"
    message: ClassVar[str] = "{collection} {key!r}: field {field!r} refers to {target} {target_key!r}, which is missing"
    hint: ClassVar[str] = "write the record that it refers to first, or in the same batch or push"
    field: str
    target: str
    target_key: str


@dataclass(eq=False)
class ReferredTo(RuleBroken):
    """A delete of a record that others refer to, where their field says that it must be there. Names a few of them."""

    code: ClassVar[str] = "referred-to"
    message: ClassVar[str] = "{collection} {key!r} is referred to by {referrers}"
    hint: ClassVar[str] = "let them refer elsewhere or delete them first, or in the same batch or push"
    referrers: list[str]


@dataclass(eq=False)
class UniqueTaken(RuleBroken):
    """A write of a value that another record holds already, where no two may hold the same."""

    code: ClassVar[str] = "unique-taken"
    message: ClassVar[str] = "{collection} {key!r}: field {field!r} is to be {value}, which {holder!r} holds already"
    hint: ClassVar[str] = "use another value, or change the record that holds this one first, or in the same batch"
    field: str
    value: str
    holder: str


@dataclass(eq=False)
class VersionMismatch(RefoldError):
    """The version the writer stated is not the current one."""

    code: ClassVar[str] = "version-mismatch"
    message: ClassVar[str] = "{collection} {key!r}: stated version {stated!r}, current is {current!r}"
    hint: ClassVar[str] = "read the record again, apply the change to what it is now, and retry"
    collection: str
    key: str
    stated: str
    current: str


@dataclass(eq=False)
class VersionUnknown(RefoldError):
    """A version that a writer says it saw, and that the record never had here."""

    code: ClassVar[str] = "version-unknown"
    message: ClassVar[str] = "{collection} {key!r} never had version {stated!r} here"
    hint: ClassVar[str] = "read the record again; if it comes from another replica, sync with that one first"
    collection: str
    key: str
    stated: str


@dataclass(eq=False)
class RequestReused(RefoldError):
    """A request id that was already used to write something else."""

    code: ClassVar[str] = "request-reused"
    message: ClassVar[str] = (
        "request id {request_id!r} was used for another write, {used_for}, not for this one of {collection} {key!r}"
    )
    hint: ClassVar[str] = "use a new request id for each new write"
    request_id: str
    used_for: str
    collection: str
    key: str


@dataclass(eq=False)
class ClockBehind(RefoldError):
    """A stated time that is earlier than the newest event of the log."""

    code: ClassVar[str] = "clock-behind"
    message: ClassVar[str] = "time {stated} is earlier than the newest event, {newest}"
    hint: ClassVar[str] = "history is written in order: state a time at or after the newest event"
    stated: str
    newest: str


@dataclass(eq=False)
class ReplicaMismatch(RefoldError):
    """An archive was opened as another replica than the one it belongs to."""

    code: ClassVar[str] = "replica-mismatch"
    message: ClassVar[str] = "{path} belongs to replica {found!r}, not {asked!r}"
    hint: ClassVar[str] = "open it without replica=, or restore a copy under a replica id of its own"
    path: str
    found: str
    asked: str


@dataclass(eq=False)
class EngineClosed(RefoldError):
    """A call on an engine, batch or store that is closed."""

    code: ClassVar[str] = "closed"
    message: ClassVar[str] = "{what} is closed"
    hint: ClassVar[str] = "use it inside `async with`"
    what: str


@dataclass(eq=False)
class ReadOnly(RefoldError):
    """A write to an archive that was opened for reading."""

    code: ClassVar[str] = "read-only"
    message: ClassVar[str] = "{path} was opened for reading"
    hint: ClassVar[str] = "open it without readonly=True"
    path: str


@dataclass(eq=False)
class ArchiveMissing(RefoldError):
    """There is no archive at that path."""

    code: ClassVar[str] = "no-archive"
    message: ClassVar[str] = "no archive at {path}"
    hint: ClassVar[str] = "create one with `refold -C DIR init`, or correct the path"
    path: str


@dataclass(eq=False)
class ArchiveExists(RefoldError):
    """A place that must be new or empty is not."""

    code: ClassVar[str] = "exists"
    message: ClassVar[str] = "{path} is already there"
    hint: ClassVar[str] = "choose a new place; nothing was changed"
    path: str


@dataclass(eq=False)
class SettingsInvalid(RefoldError):
    """A setting that is unknown, or whose value does not fit."""

    code: ClassVar[str] = "settings-invalid"
    message: ClassVar[str] = "{path}: {why}"
    hint: ClassVar[str] = "correct the file; nothing was opened"
    path: str
    why: str


@dataclass(eq=False)
class Locked(RefoldError):
    """Another process writes this archive."""

    code: ClassVar[str] = "locked"
    message: ClassVar[str] = "{path} is in use by process {pid} on {host} since {since}"
    hint: ClassVar[str] = "wait for that process to end, or end it; the lock goes with it"
    path: str
    pid: int
    host: str
    since: str


@dataclass(eq=False)
class FormatUnknown(RefoldError):
    """A file of a format or version this release does not know."""

    code: ClassVar[str] = "format-unknown"
    message: ClassVar[str] = "{path} has format {found!r}; this release knows {known!r}"
    hint: ClassVar[str] = "use a newer release of refold; nothing was changed"
    path: str
    found: str
    known: str


@dataclass(eq=False)
class FormatOld(FormatUnknown):
    """A file of an earlier version that this release does not read; what is derived is made anew."""

    code: ClassVar[str] = "format-old"


@dataclass(eq=False)
class ConflictUnknown(RefoldError):
    """There is no conflict of that id, or none that waits to be settled."""

    code: ClassVar[str] = "conflict-unknown"
    message: ClassVar[str] = "no conflict {id!r} {why}"
    hint: ClassVar[str] = "`refold conflicts` lists them"
    id: str
    why: str


@dataclass(eq=False)
class ResolutionRefused(RefoldError):
    """A way to settle a conflict that does not fit it."""

    code: ClassVar[str] = "resolution-refused"
    message: ClassVar[str] = "conflict {id}: {why}"
    hint: ClassVar[str] = "`refold conflicts show {id}` shows its sides; take one of them, or state values"
    id: str
    why: str


@dataclass(eq=False)
class StorageFailed(RefoldError):
    """The disk, file system or database refused an operation. Nothing acknowledged is affected."""

    code: ClassVar[str] = "storage-failed"
    message: ClassVar[str] = "{path}: {operation} failed: {reason}"
    hint: ClassVar[str] = "mend the disk (space, rights, hardware), then open the archive again"
    path: str
    operation: str
    reason: str


@dataclass(eq=False)
class StorePoisoned(RefoldError):
    """An earlier failure left unknown what is durable, so no write is accepted until the archive is reopened."""

    code: ClassVar[str] = "store-poisoned"
    message: ClassVar[str] = "no writes are accepted after an earlier failure: {cause}"
    hint: ClassVar[str] = "close the engine, mend the cause, open it again: opening repairs what needs repair"
    cause: str


@dataclass(eq=False)
class LogCorrupt(RefoldError):
    """An event of the log does not prove itself."""

    code: ClassVar[str] = "log-corrupt"
    message: ClassVar[str] = "the log is damaged at position {position}: {why}"
    hint: ClassVar[str] = "run `refold verify`; `refold recover` makes a new archive of this one and others together"
    position: int
    why: str


@dataclass(eq=False)
class LogLost(LogCorrupt):
    """There is no log where an archive is otherwise; no new one is begun there."""

    message: ClassVar[str] = "the log is gone: {why}"
    hint: ClassVar[str] = (
        "`refold restore --in-place --from folders` makes it anew of the folders, `refold recover` of all that is left;"
        " nothing was changed"
    )


@dataclass(eq=False)
class EventsMissing(RefoldError):
    """Events stand in a log, or are offered to it, whose predecessors are not there."""

    code: ClassVar[str] = "events-missing"
    message: ClassVar[str] = "events are missing: {missing}"
    hint: ClassVar[str] = (
        "bring the missing events first: `refold sync` with who has them, or `refold recover` of all that is left"
    )
    missing: list[str]

    def __str__(self) -> str:
        return f"events are missing: {', '.join(self.missing)}"


@dataclass(eq=False)
class EventForked(RefoldError):
    """Two different events claim the same dot."""

    code: ClassVar[str] = "forked"
    message: ClassVar[str] = "replica {replica!r} wrote two different events as seq {seq}: {ours} and {theirs}"
    hint: ClassVar[str] = (
        "a store was copied and both copies were written; `refold recover ONE OTHER -o NEW --prefer ONE` goes on with"
        " one and keeps aside what only the other has"
    )
    replica: str
    seq: int
    ours: str
    theirs: str


@dataclass(eq=False)
class ProjectionFailed(RefoldError):
    """A projection stopped; the log and the other projections go on."""

    code: ClassVar[str] = "projection-failed"
    message: ClassVar[str] = "projection {name!r} stopped at position {position}: {reason}"
    hint: ClassVar[str] = "mend the cause and reopen, or rebuild it with `refold restore --in-place`"
    name: str
    position: int
    reason: str


@dataclass(eq=False)
class ProjectionUnknown(RefoldError):
    """A projection that this archive does not keep."""

    code: ClassVar[str] = "projection-unknown"
    message: ClassVar[str] = "this archive keeps no {name}; it keeps {known}"
    hint: ClassVar[str] = "refold.toml says which projections are kept"
    name: str
    known: list[str]


@dataclass(eq=False)
class PositionUnknown(RefoldError):
    """A position or time outside the log."""

    code: ClassVar[str] = "position-unknown"
    message: ClassVar[str] = "position {position} is not in the log, which ends at {end}"
    hint: ClassVar[str] = "`refold log` shows the positions"
    position: int
    end: int


@dataclass(eq=False)
class MomentUnknown(RefoldError):
    """A moment at which this log has nothing, or that it does not know."""

    code: ClassVar[str] = "moment-unknown"
    message: ClassVar[str] = "{moment} is no moment of this archive: {why}"
    hint: ClassVar[str] = "`refold log` shows times and positions, `refold tag --list` the moments that have names"
    moment: str
    why: str


@dataclass(eq=False)
class MomentRefused(RefoldError, ValueError):
    """Text that does not say a moment."""

    code: ClassVar[str] = "bad-moment"
    message: ClassVar[str] = "{text!r} is no moment: {why}"
    hint: ClassVar[str] = (
        "accepted are a time such as 2026-01-01T12:00Z or 2026-01-01, @POSITION, @end, a tag, and REPLICA:SEQ,…"
    )
    text: str
    why: str


@dataclass(eq=False)
class CursorRefused(RefoldError):
    """A text that is no cursor, or not one of what is asked."""

    code: ClassVar[str] = "cursor-refused"
    message: ClassVar[str] = "cursor {cursor!r} {why}"
    hint: ClassVar[str] = "pass `next` of the page before as it was, and ask for the same; or pull from the start"
    cursor: str
    why: str


@dataclass(eq=False)
class CursorForeign(RefoldError):
    """A cursor that another log gave out: another archive's, or this one's before it was cut or rebuilt."""

    code: ClassVar[str] = "cursor-foreign"
    message: ClassVar[str] = "the cursor is of another log than {path}, or of what it was before it was restored"
    hint: ClassVar[str] = "forget what was pulled, and pull from the start, without a cursor"
    path: str


@dataclass(eq=False)
class ExtraMissing(RefoldError):
    """A package that an optional part needs is not installed."""

    code: ClassVar[str] = "extra-missing"
    message: ClassVar[str] = "{package} is not installed"
    hint: ClassVar[str] = "pip install 'refold[{extra}]'"
    package: str
    extra: str


@dataclass(eq=False)
class SchemeUnknown(RefoldError):
    """No installed store or peer answers to that URL scheme."""

    code: ClassVar[str] = "scheme-unknown"
    message: ClassVar[str] = "nothing is installed for {url!r}; known schemes are {known}"
    hint: ClassVar[str] = "install the package that provides it"
    url: str
    known: list[str]


@dataclass(eq=False)
class InputRefused(RefoldError):
    """A file of records that cannot be read as what it was said to be."""

    code: ClassVar[str] = "input-refused"
    message: ClassVar[str] = "{path}: {why}"
    hint: ClassVar[str] = "correct the file; what was read before is kept"
    path: str
    why: str

"""What one scan has seen so far, on disk: temporary tables beside the cache, so that no archive is too large.

Records, files and cache are each noted as they come and then met by path, as sorted streams. Paths are the bytes of the
file system, since not every name is text.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from refold_adapters.sqlite_connection import failures

from .cache import TICK_NS, Cache, Known
from .findings import DocumentFinding, Pointer
from .paths import Stat
from .walking import Odd, Walked

PAGE = 1000
"""Documents that are looked at between two moments at which what was read is remembered."""

_TABLES = """
CREATE TEMP TABLE pointed (path BLOB, collection TEXT, key TEXT, field TEXT, hash TEXT, asked INTEGER);
CREATE TEMP TABLE found (path BLOB, size INTEGER, mtime INTEGER, inode INTEGER);
CREATE TEMP TABLE odd (path BLOB, detail TEXT);
CREATE TEMP TABLE hashed (path BLOB PRIMARY KEY, hash TEXT) WITHOUT ROWID;
CREATE TEMP TABLE trouble (
    id INTEGER PRIMARY KEY, kind TEXT, path BLOB, detail TEXT, collection TEXT, key TEXT, field TEXT, hash TEXT,
    said TEXT, places TEXT
);
"""
_MEETING = """
CREATE INDEX temp.pointed_by_path ON pointed (path);
CREATE INDEX temp.found_by_path ON found (path);
CREATE TEMP TABLE asked AS
    SELECT pointed.path FROM pointed
    LEFT JOIN found ON found.path = pointed.path LEFT JOIN main.documents AS known ON known.path = pointed.path
    WHERE asked AND {} GROUP BY pointed.path ORDER BY pointed.path;
CREATE TEMP TABLE strangers AS
    SELECT path FROM found WHERE NOT EXISTS (SELECT 1 FROM pointed WHERE pointed.path = found.path) ORDER BY path;
"""
_SOUND = (
    "(found.size = known.size AND found.mtime = known.mtime AND found.inode = known.inode"
    f" AND known.mtime + {TICK_NS} < known.began AND known.rot IS NULL AND known.hash = pointed.hash)"
)
"""As `Known.holds` and `finding` say it of one document, for all of them at once."""

_MET = """
SELECT one.path, found.size, found.mtime, found.inode,
       known.size, known.mtime, known.inode, known.began, known.hash, known.rot
FROM {} AS one LEFT JOIN found ON found.path = one.path LEFT JOIN main.documents AS known ON known.path = one.path
WHERE one.rowid > ? AND one.rowid <= ? ORDER BY one.rowid
"""
_POINTERS = """
SELECT one.path, pointed.collection, pointed.key, pointed.field, pointed.hash
FROM asked AS one JOIN pointed ON pointed.path = one.path
WHERE one.rowid > ? AND one.rowid <= ? AND pointed.asked ORDER BY one.rowid, collection, key, field
"""
_COLUMNS = "id, kind, path, detail, collection, key, field, hash, said, places"


class Document(NamedTuple):
    """A path with what the walk saw there, what the cache knows, and the records that point to it."""

    path: bytes
    stat: Stat | None
    known: Known | None
    pointers: list[Pointer]

    @property
    def text(self) -> str:
        """The path as Python spells it."""
        return os.fsdecode(self.path)


class Trouble(NamedTuple):
    """A finding as it was noted, with the hash that the record says."""

    id: int
    finding: DocumentFinding
    path: bytes
    said: str


class Notes:
    """The notes of one scan. For one thread at a time. Every method may raise `StorageFailed`."""

    def __init__(self, cache: Cache) -> None:
        self._connection = cache.connection
        self._path = cache.path
        with failures(self._path, "noting documents"):
            self._connection.executescript(_TABLES)

    def _many(self, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
        with failures(self._path, "noting documents"):
            self._connection.execute("BEGIN")
            try:
                self._connection.executemany(sql, rows)
            finally:
                self._connection.execute("COMMIT")

    def _all(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with failures(self._path, "comparing documents"):
            return self._connection.execute(sql, values).fetchall()

    def _count(self, sql: str, values: Sequence[Any] = ()) -> int:
        return int(self._all(sql, values)[0][0] or 0)

    def point(self, rows: Sequence[tuple[bytes, str, str, str, str | None, bool]]) -> None:
        """Notes paths that records tell: collection, key, field, hash, and whether the document is asked for."""
        self._many("INSERT INTO pointed VALUES (?, ?, ?, ?, ?, ?)", rows)

    def see(self, page: Walked) -> list[Odd]:
        """Notes what the walk saw; what of it could not be looked at."""
        self._many("INSERT INTO found VALUES (?, ?, ?, ?)", page.files)
        self._many("INSERT INTO odd VALUES (?, ?)", [(odd.path, odd.detail) for odd in page.odd if not odd.unreadable])
        return [odd for odd in page.odd if odd.unreadable]

    def meet(self, *, full: bool) -> tuple[int, int]:
        """Sets records and files against each other; how many documents are asked for, and how many files there are.

        Unless all are to be looked at, those are passed over that stand as they did when they were what records say.
        """
        with failures(self._path, "comparing documents"):
            self._connection.executescript(_MEETING.format("1" if full else f"NOT ifnull({_SOUND}, 0)"))
        asked = "SELECT count(DISTINCT path) FROM pointed WHERE asked"
        return self._count(asked), self._count("SELECT count(*) FROM found")

    def documents(self) -> Iterator[list[Document]]:
        """The documents that are asked for and have to be looked at, by path."""
        return self._pages("asked")

    def strangers(self) -> Iterator[list[Document]]:
        """The files to which no record points, by path."""
        return self._pages("strangers")

    def _pages(self, table: str) -> Iterator[list[Document]]:
        last = self._count(f"SELECT max(rowid) FROM {table}")
        for start in range(0, last, PAGE):
            span = start, start + PAGE
            pointers: dict[bytes, list[Pointer]] = {}
            for path, *pointer in self._all(_POINTERS, span) if table == "asked" else ():
                pointers.setdefault(path, []).append(Pointer(*pointer))
            yield [
                Document(
                    row[0],
                    Stat(*row[1:4]) if row[1] is not None else None,
                    Known(Stat(*row[4:7]), *row[7:10]) if row[4] is not None else None,
                    pointers.get(row[0], []),
                )
                for row in self._all(_MET.format(table), span)
            ]

    def add(self, path: bytes, stat: Stat) -> None:
        """Notes a file that the walk passed over, and that a record points to."""
        self._many("INSERT INTO found VALUES (?, ?, ?, ?)", [(path, *stat)])

    def trouble(self, found: Sequence[tuple[DocumentFinding, bytes, str]]) -> None:
        """Notes findings, each with its path as bytes and the hash that the record says."""
        sql = f"INSERT INTO trouble ({_COLUMNS}) VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, '[]')"
        self._many(
            sql,
            [
                (one.kind, path, one.detail, one.collection, one.key, one.field, one.hash, said)
                for one, path, said in found
            ],
        )

    def has_lost(self) -> bool:
        """Whether documents are missing of which a hash is known; prepares for the search for them."""
        with failures(self._path, "comparing documents"):
            self._connection.executescript(
                "CREATE INDEX temp.trouble_by_path ON trouble (path);"
                "CREATE INDEX temp.trouble_by_said ON trouble (said) WHERE kind = 'document-missing';"
            )
        return self._count("SELECT count(*) FROM trouble WHERE kind = 'document-missing' AND said != ''") > 0

    def lost_sizes(self) -> set[int] | None:
        """How large the documents are that are missing, by the cache; None where it does not know of all of them."""
        rows = self._all(
            "SELECT DISTINCT (SELECT size FROM main.documents AS known WHERE known.path = trouble.path"
            " AND known.hash = trouble.said) FROM trouble WHERE kind = 'document-missing' AND said != ''"
        )
        sizes = {size for (size,) in rows}
        return None if None in sizes else sizes

    def place(self, found: Sequence[tuple[bytes, str]]) -> None:
        """Notes the hashes of files to which no record points, those that documents have that are missing."""
        sql = "SELECT 1 FROM trouble WHERE said = ? AND kind = 'document-missing' LIMIT 1"
        self._many("INSERT OR REPLACE INTO hashed VALUES (?, ?)", [row for row in found if self._all(sql, (row[1],))])

    def settle_moves(self) -> None:
        """Makes of what is missing, and stands elsewhere, what has moved; of files that nobody knows, orphans."""
        with failures(self._path, "comparing documents"):
            connection = self._connection
            connection.execute("CREATE INDEX temp.hashed_by_hash ON hashed (hash)")
            connection.execute("CREATE INDEX temp.pointed_by_hash ON pointed (hash)")
            connection.execute(
                "UPDATE trouble SET detail = 'it is not there; the same bytes stand where others point to'"
                " WHERE kind = 'document-missing' AND said != '' AND EXISTS (SELECT 1 FROM pointed"
                " WHERE pointed.hash = said AND NOT EXISTS (SELECT 1 FROM trouble AS o WHERE o.path = pointed.path))"
            )
            connection.execute(
                "UPDATE trouble SET kind = 'document-moved', hash = said, detail = 'it is not there, but elsewhere',"
                " places = (SELECT json_group_array(hex(path)) FROM"
                " (SELECT path FROM hashed WHERE hashed.hash = said ORDER BY path LIMIT 10))"
                " WHERE kind = 'document-missing' AND said IN (SELECT hash FROM hashed)"
            )

    def settle_orphans(self) -> None:
        """Notes the files below the root to which no record points, and to which nothing has moved."""
        with failures(self._path, "comparing documents"):
            for table, detail in (("strangers", "'no record points to it'"), ("odd", "detail")):
                self._connection.execute(
                    f"INSERT INTO trouble ({_COLUMNS}) SELECT NULL, 'document-orphaned', path, {detail}, NULL, NULL,"
                    f" NULL, NULL, '', '[]' FROM {table} WHERE instr(path, x'2f') AND path NOT IN (SELECT path FROM"
                    " hashed) AND path NOT IN (SELECT path FROM pointed)"
                )

    def rivals(self, said: str) -> int:
        """How many different documents with this hash have moved."""
        sql = "SELECT count(DISTINCT path) FROM trouble WHERE kind = 'document-moved' AND said = ?"
        return self._count(sql, (said,))

    def troubles(self, kinds: Sequence[str] = ()) -> Iterator[list[Trouble]]:
        """What was found, by path, or of some kinds only, some at a time."""
        known = ", ".join(f"'{kind}'" for kind in kinds)
        only = f"WHERE kind IN ({known})" if kinds else ""
        name = "ordered" + str(self._count("SELECT count(*) FROM sqlite_temp_schema"))
        with failures(self._path, "comparing documents"):
            self._connection.execute(
                f"CREATE TEMP TABLE {name} AS"
                f" SELECT id AS trouble FROM trouble {only} ORDER BY path, collection, key, id"
            )
        last = self._count(f"SELECT max(rowid) FROM {name}")
        for start in range(0, last, PAGE):
            rows = self._all(
                f"SELECT {_COLUMNS} FROM {name} AS one JOIN trouble ON id = one.trouble"
                " WHERE one.rowid > ? AND one.rowid <= ? ORDER BY one.rowid",
                (start, start + PAGE),
            )
            yield [_trouble(row) for row in rows]

    def change(self, changes: Sequence[tuple[int, str, str]]) -> None:
        """Gives troubles another kind and detail."""
        self._many("UPDATE trouble SET kind = ?, detail = ? WHERE id = ?", [(k, d, i) for i, k, d in changes])

    def remove(self, ids: Sequence[int]) -> None:
        """Forgets troubles that are none any more."""
        self._many("DELETE FROM trouble WHERE id = ?", [(number,) for number in ids])

    def counts(self) -> dict[str, int]:
        """How many findings there are of each kind."""
        return dict(self._all("SELECT kind, count(*) FROM trouble GROUP BY kind ORDER BY kind"))

    def missing(self) -> int:
        """How many documents are not where records say, wherever they are."""
        kinds = "('document-missing', 'document-moved')"
        return self._count(f"SELECT count(DISTINCT path) FROM trouble WHERE kind IN {kinds}")

    def forget_gone(self) -> None:
        """Drops from the cache what the walk did not see."""
        with failures(self._path, "remembering documents"):
            self._connection.execute("DELETE FROM main.documents WHERE path NOT IN (SELECT path FROM found)")


def _trouble(row: tuple[Any, ...]) -> Trouble:
    number, kind, path, detail, collection, key, field, found, said, places = row
    finding = DocumentFinding(
        kind,
        os.fsdecode(path),
        detail,
        collection,
        key,
        field,
        found,
        tuple(os.fsdecode(bytes.fromhex(place)) for place in msgspec.json.decode(places)),
    )
    return Trouble(number, finding, path, said)

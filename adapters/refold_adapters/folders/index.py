"""The index of the folders, `folders.db`: which record is in which folder, and what was written there.

It is derived and may be deleted at any time. `dirty` is a list of work that outlives a crash: a folder is put on it in
the transaction that moves its records, before any of its files is touched, and leaves it in the one that notes what
was made durable. So whatever a crash leaves half done is on the list, also a folder that is not asked for any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from itertools import groupby
from pathlib import Path

import msgspec

from refold.events import Checkpoint, Head
from refold.fold import format_digest
from refold.names import twin_key, twin_name
from refold.ports import Record
from refold_adapters.sqlite_bulk import insert_many, marks, padded
from refold_adapters.sqlite_connection import close, connect, ensure_schema, failures

FORMAT = 2
_PAGE = 1000

PART, WHOLE, UNSURE, REWRITE = 0, 1, 2, 3
"""How dirty a folder is: it has more events; it has other records; nobody knows what its files hold; what can be read
of them may not be on the disk, since making it durable failed."""


class File(msgspec.Struct, frozen=True, array_like=True):
    """One file as it was written: its name, size and SHA-256."""

    name: str
    size: int
    hash: bytes


class Written(msgspec.Struct, frozen=True, array_like=True):
    """What stands in a folder: the files of its records by collection, meta.json, and where events.jsonl ends."""

    data: dict[str, File]
    meta: File
    size: int
    count: int
    hash: bytes
    upper: bytes
    last: tuple[int, str, int]
    vector: dict[str, Head]


class Folder(msgspec.Struct, frozen=True):
    """A row of the index.

    `stands` is where files of it may be, noted before the first is written, `written` what is known to stand there;
    `place` is where they have to be.
    """

    id: int
    path: str
    place: str
    stands: str | None
    position: int
    written: Written | None
    dirt: int
    count: int


_OWNS = "EXISTS (SELECT 1 FROM records WHERE folder = folders.id)"
_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_written = msgspec.msgpack.Decoder(Written).decode
_heads = msgspec.msgpack.Decoder(dict[str, Head]).decode


def unique_names(names: Sequence[str]) -> dict[str, str]:
    """Each name, altered where a file system that ignores case takes it for a smaller one: a function of the set."""
    chosen: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(names):
        key = twin_key(name)
        chosen[name] = twin_name(name, name) if key in taken else name
        taken.add(key)
    return chosen


class Index:
    """The index in one SQLite file. Raises `StorageFailed`."""

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        self.path = path
        self.readonly = readonly
        self._connection = connect(path, readonly=readonly, synchronous=2)
        try:
            script = files(__package__).joinpath("index.sql").read_text()
            ensure_schema(self._connection, path, "rffo", FORMAT, script)
            with failures(path, "reading the index"):
                self._collections = dict(self._connection.execute("SELECT name, id FROM collections").fetchall())
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Lets go of the file."""
        if self.readonly:
            self._connection.close()
        else:
            close(self._connection, self.path)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is done inside, durable at the end, or nothing of it."""
        try:
            with failures(self.path, "writing the index"):
                self._connection.execute("BEGIN IMMEDIATE")
                yield
                self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self._collections = dict(self._connection.execute("SELECT name, id FROM collections").fetchall())
            raise

    def checkpoint(self) -> Checkpoint:
        """How far the folders have come."""
        with failures(self.path, "reading the index"):
            row = self._connection.execute("SELECT position, heads, digest FROM checkpoint").fetchone()
        if row is None:
            return Checkpoint(digest=None)
        return Checkpoint(row[0], _heads(row[1]), None if row[2] is None else int(row[2], 16))

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Notes how far the folders have come."""
        digest = None if checkpoint.digest is None else format_digest(checkpoint.digest)
        self._connection.execute(
            "INSERT OR REPLACE INTO checkpoint VALUES (1, ?, ?, ?)",
            (checkpoint.position, _encode(checkpoint.heads), digest),
        )

    def reset(self) -> None:
        """Forgets everything; what stands in the archive is compared, and swept, when it has been written anew."""
        with self.transaction():
            for table in ("checkpoint", "routed", "dirty", "records", "folders", "collections", "suspects"):
                self._connection.execute(f"DELETE FROM {table}")
            self._connection.execute("INSERT OR IGNORE INTO unseen VALUES (1)")
        self._collections = {}

    def routed(self) -> int:
        """The position up to which every event's record is in its folder here; at or beyond the checkpoint's."""
        row = self._connection.execute("SELECT position FROM routed").fetchone()
        return int(row[0]) if row is not None else 0

    def save_routed(self, position: int) -> None:
        """Notes up to which position records were routed."""
        self._connection.execute("INSERT OR REPLACE INTO routed VALUES (1, ?)", (position,))

    def must_look(self) -> bool:
        """Whether files may stand in folders that the index does not know."""
        return self._connection.execute("SELECT 1 FROM unseen").fetchone() is not None

    def suspect(self, places: Sequence[tuple[str, bool]]) -> None:
        """Notes where files stand that may be ours, and whether unfinished ones do."""
        rows = [(place, twin_key(place.partition("%~")[0]), unfinished) for place, unfinished in places]
        self._connection.executemany("INSERT OR REPLACE INTO suspects VALUES (?, ?, ?)", rows)

    def looked(self) -> None:
        """Notes that all such places are noted."""
        self._connection.execute("DELETE FROM unseen")

    def suspects(self, limit: int) -> list[tuple[str, bool]]:
        """Places noted that no folder has, or with something unfinished, and whether a folder has them."""
        return self._connection.execute(
            "SELECT place, known FROM (SELECT place, unfinished, EXISTS (SELECT 1 FROM folders f WHERE f.twin = s.twin"
            " AND stands = s.place) AS known FROM suspects s) WHERE unfinished OR NOT known LIMIT ?",
            (limit,),
        ).fetchall()

    def cleared(self, places: Sequence[str]) -> None:
        """Takes places off the list again."""
        self._connection.executemany("DELETE FROM suspects WHERE place = ?", [(place,) for place in places])

    def absolve(self) -> None:
        """Takes all places off the list."""
        self._connection.execute("DELETE FROM suspects")

    def collections(self) -> list[str]:
        """The names of all collections that have records."""
        return list(self._collections)

    def collection_id(self, name: str) -> int:
        """The number of a collection, given to it when it is first asked for."""
        number = self._collections.get(name)
        if number is None:
            number = self._collections[name] = len(self._collections) + 1
            self._connection.execute("INSERT INTO collections VALUES (?, ?)", (number, name))
        return number

    def lookup(self, records: Sequence[Record]) -> dict[Record, int]:
        """The folder of each record that is known."""
        by_collection: dict[str, list[str]] = {}
        for collection, key in records:
            by_collection.setdefault(collection, []).append(key)
        found: dict[Record, int] = {}
        for collection, keys in by_collection.items():
            number = self._collections.get(collection)
            for part in padded(keys) if number is not None else ():
                rows = self._connection.execute(
                    f"SELECT key, folder FROM records WHERE collection = ? AND key IN ({marks(len(part))})",
                    [number, *part],
                )
                for key, folder in rows:
                    found[collection, key] = folder
        return found

    def keys(self, collection: str) -> Iterator[list[str]]:
        """The keys of all records of a collection, a page at a time; the records may be routed meanwhile."""
        number, last = self._collections.get(collection, 0), ""
        while rows := self._connection.execute(
            "SELECT key FROM records WHERE collection = ? AND key > ? ORDER BY key LIMIT ?", (number, last, _PAGE)
        ).fetchall():
            last = rows[-1][0]
            yield [key for (key,) in rows]

    def folder_id(self, path: str) -> int:
        """The number of a folder, given to it when it is first asked for."""
        key = twin_key(path)
        row = self._connection.execute("SELECT id FROM folders WHERE twin = ? AND path = ?", (key, path)).fetchone()
        if row is not None:
            return int(row[0])
        cursor = self._connection.execute("INSERT INTO folders (path, twin, place) VALUES (?, ?, ?)", (path, key, path))
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def assign(self, rows: Sequence[tuple[str, str, int]]) -> None:
        """Notes records by collection and key with their folder."""
        made = [(self.collection_id(collection), key, folder) for collection, key, folder in rows]
        insert_many(self._connection, "INSERT OR REPLACE INTO records", made)

    def soil(self, rows: Sequence[tuple[int, int]]) -> None:
        """Puts folders on the list of work, with how dirty they are; the dirtier counts."""
        self._connection.executemany(
            "INSERT INTO dirty VALUES (?, ?) ON CONFLICT (folder) DO UPDATE SET whole = max(whole, excluded.whole)",
            rows,
        )

    def soil_rest(self) -> None:
        """Marks what an earlier run left on the list: nobody knows how much of it was done."""
        self._connection.execute("UPDATE dirty SET whole = max(whole, ?)", (UNSURE,))

    def distrust(self) -> None:
        """Has everything on the list written again, even what reads as it should."""
        self._connection.execute("UPDATE dirty SET whole = ?", (REWRITE,))

    def place_twins(self) -> None:
        """Gives the folders their places, where case alone tells them apart and one of them is on the list."""
        rows = self._connection.execute(
            f"SELECT twin, path, id, place, {_OWNS} FROM folders"
            " WHERE twin IN (SELECT f.twin FROM dirty JOIN folders f ON f.id = folder"
            "  JOIN folders g ON g.twin = f.twin AND g.id <> f.id) ORDER BY twin, path"
        ).fetchall()
        for _, group in groupby(rows, key=lambda row: row[0]):
            used = [row for row in group if row[4]]
            places = unique_names([row[1] for row in used])
            for _, path, number, place, _ in used:
                if places[path] != place:
                    self._connection.execute("UPDATE folders SET place = ? WHERE id = ?", (places[path], number))
                    self.soil([(number, WHOLE)])

    def stand(self) -> None:
        """Notes where the files of folders on the list will stand, for those that have none yet."""
        self._connection.execute(
            f"UPDATE folders SET stands = place WHERE stands IS NULL AND id IN (SELECT folder FROM dirty) AND {_OWNS}"
        )

    _ROW = "SELECT f.id, path, place, stands, f.position, files, whole"

    def vacating(self, limit: int) -> list[Folder]:
        """Folders on the list whose files stand where a twin's have to be, or their own no more."""
        return self._folders(
            f"{self._ROW}, 0 FROM dirty JOIN folders f ON f.id = folder WHERE stands IS NOT NULL AND"
            " (stands <> place OR (NOT EXISTS (SELECT 1 FROM records r WHERE r.folder = f.id)"
            " AND EXISTS (SELECT 1 FROM folders g WHERE g.twin = f.twin AND g.id <> f.id))) LIMIT ?",
            limit,
        )

    def unsure(self, after: int, limit: int) -> list[Folder]:
        """Folders on the list of which nobody knows what their files hold, in the order of their numbers."""
        return self._folders(
            f"{self._ROW}, 0 FROM dirty JOIN folders f ON f.id = folder WHERE folder > ? AND whole >= ?"
            " ORDER BY folder LIMIT ?",
            after,
            UNSURE,
            limit,
        )

    def working(self, after: int, limit: int) -> list[Folder]:
        """Folders on the list that own records, with how many, in the order of their numbers."""
        return self._folders(
            f"{self._ROW}, (SELECT count(*) FROM records r WHERE r.folder = f.id) AS owned"
            " FROM dirty JOIN folders f ON f.id = folder WHERE folder > ? AND owned > 0 ORDER BY folder LIMIT ?",
            after,
            limit,
        )

    def leaving(self, limit: int) -> list[Folder]:
        """Folders on the list that own nothing any more."""
        return self._folders(
            f"{self._ROW}, 0 FROM dirty JOIN folders f ON f.id = folder"
            " WHERE NOT EXISTS (SELECT 1 FROM records r WHERE r.folder = f.id) LIMIT ?",
            limit,
        )

    def standing(self, places: Sequence[str]) -> dict[str, Folder]:
        """The folders whose files stand at these places."""
        keys = list({twin_key(place.partition("%~")[0]) for place in places})
        found: list[Folder] = []
        for part in padded(keys):
            found += self._folders(
                f"{self._ROW}, 0 FROM folders f LEFT JOIN dirty ON f.id = folder WHERE twin IN ({marks(len(part))})",
                *part,
            )
        return {folder.stands: folder for folder in found if folder.stands is not None}

    def count(self) -> int:
        """How many folders have files."""
        return int(self._connection.execute("SELECT count(*) FROM folders WHERE stands IS NOT NULL").fetchone()[0])

    def owns(self, limit: int) -> int:
        """How many records the folders on the list own, counted up to a limit."""
        row = self._connection.execute(
            "SELECT count(*) FROM (SELECT 1 FROM dirty d JOIN records r ON r.folder = d.folder LIMIT ?)", (limit,)
        ).fetchone()
        return int(row[0])

    def dirty(self) -> int:
        """How many folders are on the list of work."""
        return int(self._connection.execute("SELECT count(*) FROM dirty").fetchone()[0])

    def account(self, files: Sequence[tuple[str, bytes]]) -> None:
        """Notes of files, by place and hash, that what they hold is known."""
        self._connection.executemany("INSERT OR IGNORE INTO accounted VALUES (?, ?)", files)

    def accounted(self, places: Sequence[str]) -> dict[str, list[bytes]]:
        """By place, the hashes of files of which it was noted that what they hold is known."""
        found: dict[str, list[bytes]] = {}
        for part in padded(places):
            sql = f"SELECT place, hash FROM accounted WHERE place IN ({marks(len(part))})"
            for place, digest in self._connection.execute(sql, part):
                found.setdefault(place, []).append(digest)
        return found

    def newest(self) -> int:
        """The greatest number of a folder; 0 where there is none."""
        return int(self._connection.execute("SELECT coalesce(max(id), 0) FROM folders").fetchone()[0])

    def all_folders(self, after: int = 0) -> Iterator[Folder]:
        """Every folder whose number is greater, in the order of their numbers."""
        last = after
        while page := self._folders(
            f"{self._ROW}, 0 FROM folders f LEFT JOIN dirty ON f.id = folder WHERE f.id > ? ORDER BY f.id LIMIT ?",
            last,
            _PAGE,
        ):
            last = page[-1].id
            yield from page

    def _folders(self, sql: str, *parameters: int | str) -> list[Folder]:
        with failures(self.path, "reading the index"):
            rows = self._connection.execute(sql, parameters).fetchall()
        return [
            Folder(number, path, place, stands, position, _written(data) if data else None, dirt or 0, count)
            for number, path, place, stands, position, data, dirt, count in rows
        ]

    def owner(self, place: str, other: int) -> bool:
        """Whether the files of a folder, `other` excepted, stand here."""
        row = self._connection.execute(
            "SELECT 1 FROM folders WHERE twin = ? AND stands = ? AND id <> ?",
            (twin_key(place.partition("%~")[0]), place, other),
        ).fetchone()
        return row is not None

    def members(self, folders: Sequence[int]) -> dict[int, list[Record]]:
        """The records of some folders, by collection."""
        names = {number: name for name, number in self._collections.items()}
        found: dict[int, list[Record]] = {number: [] for number in folders}
        with failures(self.path, "reading the index"):
            for part in padded(folders):
                for folder, collection, key in self._connection.execute(
                    f"SELECT folder, collection, key FROM records WHERE folder IN ({marks(len(part))})", part
                ):
                    found[folder].append((names[collection], key))
        return found

    def collections_in(self, folder: int) -> list[str]:
        """The collections that have records in a folder."""
        names = {number: name for name, number in self._collections.items()}
        rows = self._connection.execute(
            f"SELECT id FROM collections WHERE id IN ({marks(len(names))})"
            " AND EXISTS (SELECT 1 FROM records WHERE folder = ? AND collection = id)",
            [*names, folder],
        )
        return sorted(names[number] for (number,) in rows)

    def keys_in(self, folder: int, collection: str, *, numeric: bool) -> Iterator[list[str]]:
        """The keys of one collection in one folder, in their order, a page at a time."""
        order = "CAST(key AS INTEGER), key" if numeric else "key"
        cursor = self._connection.execute(
            f"SELECT key FROM records WHERE folder = ? AND collection = ? ORDER BY {order}",
            (folder, self._collections[collection]),
        )
        while rows := cursor.fetchmany(_PAGE):
            yield [key for (key,) in rows]

    def done(self, rows: Sequence[tuple[int, str, int, Written]]) -> None:
        """Notes what stands in folders now, as of which position, and takes them off the list."""
        self._connection.executemany(
            "UPDATE folders SET stands = ?, position = ?, files = ? WHERE id = ?",
            [(place, position, _encode(written), number) for number, place, position, written in rows],
        )
        self._connection.executemany("DELETE FROM dirty WHERE folder = ?", [(row[0],) for row in rows])

    def vacated(self, folders: Sequence[int]) -> None:
        """Notes that the files of folders that stay on the list are gone, to come back at their place."""
        self._connection.executemany(
            f"UPDATE folders SET stands = CASE WHEN {_OWNS} THEN place END, files = NULL WHERE id = ?",
            [(number,) for number in folders],
        )

    def forget(self, folders: Sequence[int]) -> None:
        """Drops folders that own nothing."""
        self._connection.executemany("DELETE FROM dirty WHERE folder = ?", [(number,) for number in folders])
        self._connection.executemany("DELETE FROM folders WHERE id = ?", [(number,) for number in folders])

"""The command line as a person or a script meets it: arguments in; exit code, stdout and stderr out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

AIRPORTS = '''\
icao,name,country,subd,elevation,opened
EDDF,Frankfurt am Main,DE,Hesse,364,1936-07-08
EDDM,München,DE,Bavaria,1487,1992-05-17
076329,"O'Hare, ""Field""",US,Illinois,,
'''


class Result(NamedTuple):
    """What one command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> Any:
        """The error as JSON; nothing else may have been said."""
        assert self.out == ""
        return json.loads(self.err)["error"]


Refold: TypeAlias = Callable[..., Result]


def bytes_of(root: Path, but: tuple[str, ...] = ()) -> dict[str, bytes]:
    """Every file of the folders by its path; databases, lock and settings are not of the folders."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".db" not in path.name and path.name not in ("refold.toml", *but)
    }

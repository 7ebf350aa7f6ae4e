"""Folder templates: where in the archive a record lives, as a pure function of its values.

    template  = "" | component *( "/" component )
    component = 1*( literal | "{{" | "}}" | "{" field "}" | "{" field ":" format "}" ) | "{" field ":parent}"

A component is built as text and then encoded as a whole (`refold.names`), so no value, whatever it
holds, can name another folder than its own or leave the archive: an encoded component is never empty,
"." or "..", and has no "/" or "\\" in it. The `parent` of a path field is the one case where a value
gives several components; it is cut at "/" first and each piece is encoded.

A date is formatted here and not by strftime, which pads years as the C library likes and knows locales.
The directives have the meaning of the C standard, and only those that no locale changes are known.
"""

import datetime
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Self

import msgspec

from refold.names import encode_name

FOLDER_LIMIT = 1000

_Values = Mapping[str, object]
_Piece = Callable[[_Values], str | None]
_Component = Callable[[_Values], str]

_TOKEN = re.compile(
    r"(?P<brace>\{\{|\}\})|\{(?P<hole>[^{}]*)\}|(?P<slash>/)|(?P<literal>[^{}/]+)|(?P<stray>.)", re.DOTALL
)
_STAMP = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:Z|[+-][0-9]{2}:[0-9]{2})?)?"
).fullmatch
_DIRECTIVE = re.compile(r"%(.?)", re.DOTALL)
_DIRECTIVES: dict[str, Callable[[datetime.datetime], str]] = {
    "Y": lambda t: f"{t.year:04}",
    "y": lambda t: f"{t.year % 100:02}",
    "m": lambda t: f"{t.month:02}",
    "d": lambda t: f"{t.day:02}",
    "H": lambda t: f"{t.hour:02}",
    "M": lambda t: f"{t.minute:02}",
    "S": lambda t: f"{t.second:02}",
    "j": lambda t: f"{t.timetuple().tm_yday:03}",
    "G": lambda t: f"{t.isocalendar().year:04}",
    "V": lambda t: f"{t.isocalendar().week:02}",
    "u": lambda t: str(t.isoweekday()),
    "%": lambda _: "%",
}


class TemplateError(ValueError):
    """A template that cannot be understood, or that would not stay in the archive."""

    def __init__(self, text: str, position: int, why: str) -> None:
        super().__init__(text, position, why)
        self.text, self.position, self.why = text, position, why

    def __str__(self) -> str:
        return f"template {self.text!r}, character {self.position}: {self.why}"


class FolderTooLong(ValueError):
    """A path longer than what file systems and archivers carry."""

    def __init__(self, length: int, limit: int) -> None:
        super().__init__(length, limit)
        self.length, self.limit = length, limit

    def __str__(self) -> str:
        return f"the folder's path has at least {self.length} bytes, the limit is {self.limit}"


class NotADate(ValueError):
    """A value that a date format cannot be applied to."""

    def __init__(self, field: str, value: object) -> None:
        super().__init__(field, value)
        self.field, self.value = field, value

    def __str__(self) -> str:
        return f"field {self.field!r}: {self.value!r} is not a date"


def renamed(text: str, name: Callable[[str], str]) -> str:
    """A template's text with its fields named otherwise."""

    def again(token: re.Match[str]) -> str:
        if (hole := token["hole"]) is None:
            return token[0]
        field, colon, rest = hole.partition(":")
        return f"{{{name(field)}{colon}{rest}}}"

    return _TOKEN.sub(again, text)


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template; equal when their texts are."""

    text: str
    fields: tuple[str, ...] = field(compare=False)
    _components: tuple[_Component, ...] = field(compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        parser = _Parser(text)
        components = parser.components()
        return cls(text, tuple(parser.fields), components)

    def folder(self, values: _Values) -> str:
        """The path from the archive's root; "" is the root itself."""
        path = "/".join([part for component in self._components if (part := component(values))])
        if len(path) * 4 > FOLDER_LIMIT and (length := len(path.encode())) > FOLDER_LIMIT:
            raise FolderTooLong(length, FOLDER_LIMIT)
        return path


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.fields: dict[str, None] = {}

    def components(self) -> tuple[_Component, ...]:
        if not self.text:
            return ()
        done: list[_Component] = []
        pieces: list[str | _Piece] = []
        parent: _Component | None = None
        start = 0
        for token in _TOKEN.finditer(self.text):
            at = token.start()
            if token["slash"]:
                done.append(self._component(pieces, parent, start))
                pieces, parent, start = [], None, token.end()
            elif (hole := token["hole"]) is None:
                if token["stray"]:
                    raise self._error(at, f"a lone {token['stray']!r}; write it twice to mean the character")
                pieces.append(token["literal"] or token["brace"][0])
            elif hole.endswith(":parent"):
                if parent:
                    raise self._error(at, "a parent must be a component of its own")
                parent = _parent(self._field(hole.removesuffix(":parent"), at))
            else:
                pieces.append(self._piece(hole, at))
        done.append(self._component(pieces, parent, start))
        return tuple(done)

    def _component(self, pieces: list[str | _Piece], parent: _Component | None, at: int) -> _Component:
        if parent:
            if pieces:
                raise self._error(at, "a parent must be a component of its own")
            return parent
        if not pieces:
            raise self._error(at, "an empty component")
        if len(pieces) == 1 and not isinstance(pieces[0], str):
            return _alone(pieces[0])
        literals = [piece for piece in pieces if isinstance(piece, str)]
        if len(literals) == len(pieces):
            return self._literal("".join(literals), at)
        return _joined(tuple(pieces))

    def _literal(self, literal: str, at: int) -> _Component:
        if literal in (".", ".."):
            raise self._error(at, f"{literal!r} is not a folder's name")
        try:
            name = encode_name(literal)
        except UnicodeEncodeError as error:
            raise self._error(at, "a lone surrogate") from error
        return lambda _: name

    def _piece(self, hole: str, at: int) -> _Piece:
        name, colon, pattern = hole.partition(":")
        self._field(name, at)
        if not colon:
            return _plain(name)
        if "/" in pattern:
            raise self._error(at, "a format is one component: {date:%Y}/{date:%m}")
        pieces: list[str | Callable[[datetime.datetime], str]] = []
        for index, part in enumerate(_DIRECTIVE.split(pattern)):
            if index % 2 and part not in _DIRECTIVES:
                raise self._error(at, f"the format %{part} is not known or depends on the locale")
            if part:
                pieces.append(_DIRECTIVES[part] if index % 2 else part)
        if all(isinstance(piece, str) for piece in pieces):
            raise self._error(at, "a format needs a directive, such as %Y, or is 'parent'")
        return _formatted(name, tuple(pieces))

    def _field(self, name: str, at: int) -> str:
        if not name or name != name.strip() or "/" in name or ":" in name:
            raise self._error(at, f"{name!r} is not a field's name")
        self.fields[name] = None
        return name

    def _error(self, at: int, why: str) -> TemplateError:
        return TemplateError(self.text, at, why)


def _alone(piece: _Piece) -> _Component:
    return lambda values: encode_name(piece(values))


def _joined(pieces: tuple[str | _Piece, ...]) -> _Component:
    def component(values: _Values) -> str:
        return encode_name("".join([p if isinstance(p, str) else p(values) or "" for p in pieces]))

    return component


def _parent(name: str) -> _Component:
    def component(values: _Values) -> str:
        value = values.get(name)
        if value is None:
            return encode_name(None)
        return "/".join([encode_name(part) for part in _text(value).split("/")[:-1]])

    return component


def _plain(name: str) -> _Piece:
    def piece(values: _Values) -> str | None:
        value = values.get(name)
        return None if value is None else _text(value)

    return piece


def _formatted(name: str, pieces: tuple[str | Callable[[datetime.datetime], str], ...]) -> _Piece:
    def piece(values: _Values) -> str | None:
        value = values.get(name)
        if value is None:
            return None
        moment = _moment(name, value)
        return "".join([p if isinstance(p, str) else p(moment) for p in pieces])

    return piece


def _text(value: object) -> str:
    if type(value) is not str:
        value = msgspec.to_builtins(value)
        if not isinstance(value, str):
            return msgspec.json.encode(value, order="deterministic").decode()
    if len(value) > FOLDER_LIMIT:
        raise FolderTooLong(len(value), FOLDER_LIMIT)
    return value


def _moment(name: str, value: object) -> datetime.datetime:
    if isinstance(value, datetime.date | datetime.datetime):
        value = value.isoformat()
    if not isinstance(value, str) or not _STAMP(value):
        raise NotADate(name, value)
    try:
        moment = datetime.datetime.fromisoformat(value)
        return moment.astimezone(datetime.UTC) if moment.tzinfo else moment
    except (ValueError, OverflowError) as error:
        raise NotADate(name, value) from error

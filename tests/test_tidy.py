"""The rules of the house, read from the syntax trees; every rule is shown a snippet that breaks it."""

import ast
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from statistics import median
from typing import TypeAlias

import pytest

ROOT = Path(__file__).parents[1]
PURE = {
    f"engine/refold/{name}.py"
    for name in (
        *("events", "vector", "clock", "values", "schema", "names", "template"),
        *("fold", "conflict", "decide", "errors", "ports", "record", "replay", "frames", "session", "intake"),
        *("conflict_list", "resolving", "references", "definition", "moment", "past", "blame", "diff"),
        *("cursor", "pulls", "deletions", "attendance"),
        *("verify", "verdict", "rota"),
        *("unique", "rules", "versions", "version_rules", "conversions"),
    )
} | {f"adapters/refold_adapters/backup/{name}.py" for name in ("manifest", "retention")}
IO_MODULES = {
    *("aiofiles", "aiosqlite", "anyio", "asyncio", "fcntl", "http", "io", "mmap", "multiprocessing", "os", "random"),
    *("secrets", "select", "selectors", "shutil", "signal", "socket", "sqlite3", "ssl", "subprocess", "tempfile"),
    *("threading", "time", "urllib", "uuid"),
}
PURE_PATHS = {"PurePath", "PurePosixPath", "PureWindowsPath"}
CLOCK_READS = {"now", "today", "utcnow", "time_ns", "monotonic", "perf_counter", "uuid1", "uuid4", "urandom"}
ENGINE_MAY_IMPORT = sys.stdlib_module_names | {"msgspec", "refold", ""}  # "": relative, so its own
MAX_MODULE, MAX_MEDIAN, MAX_FUNCTION = 600, 200, 70
FILLER = {
    *(
        "a",
        "an",
        "the",
        "this",
        "that",
        "of",
        "for",
        "to",
        "in",
        "on",
        "its",
        "it",
        "is",
        "class",
        "function",
        "method",
    ),
    *("module", "object", "return", "give", "get", "do"),
}
WORKPLACE = re.compile(r"(?<![\w.])/(?:work|root)/|(?<![\w-])shared/|/tmp/v\b")
LEFT_UNDONE = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")

Definition: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Source:
    """One file of the repository, by its path from the root."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    def walk(self) -> Iterator[ast.AST]:
        return ast.walk(self.tree)

    @cached_property
    def definitions(self) -> list[Definition]:
        return [node for node in self.walk() if isinstance(node, Definition)]


def imports(source: Source) -> Iterator[tuple[int, str, str]]:
    """The line, module and name of every import, wherever it stands; the name is empty for a whole module."""
    for node in source.walk():
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((node.lineno, module, alias.name) for alias in node.names)


def engine_stands_alone(source: Source) -> Iterator[str]:
    if source.path.startswith("engine/"):
        for line, module, _ in imports(source):
            if module.partition(".")[0] not in ENGINE_MAY_IMPORT:
                yield f"{line}: the engine imports {module}"


def pure_modules_do_no_io(source: Source) -> Iterator[str]:
    if source.path in PURE:
        for line, module, name in imports(source):
            if module.partition(".")[0] in IO_MODULES or (module == "pathlib" and name not in PURE_PATHS):
                yield f"{line}: a pure module imports {module}"
        for node in source.walk():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"open", "input"}:
                yield f"{node.lineno}: a pure module calls {node.func.id}"


def pure_modules_read_no_clock(source: Source) -> Iterator[str]:
    if source.path in PURE:
        for node in source.walk():
            if isinstance(node, ast.Attribute) and node.attr in CLOCK_READS:
                yield f"{node.lineno}: a pure module uses {node.attr}"


def modules_are_short(source: Source) -> Iterator[str]:
    if (lines := len(source.text.splitlines())) > MAX_MODULE:
        yield f"1: {lines} lines"


def functions_are_short(source: Source) -> Iterator[str]:
    for node in source.definitions:
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if lines > MAX_FUNCTION and not isinstance(node, ast.ClassDef):
            yield f"{node.lineno}: {node.name} has {lines} lines"


def errors_are_not_swallowed(source: Source) -> Iterator[str]:
    for node in source.walk():
        if isinstance(node, ast.ExceptHandler):
            caught = set(names_in(node.type)) if node.type else {""}
            if "" in caught:
                yield f"{node.lineno}: bare except"
            elif caught & {"Exception", "BaseException"} and all(does_nothing(statement) for statement in node.body):
                yield f"{node.lineno}: every error is swallowed"
        elif isinstance(node, ast.Call) and "suppress" in names_in(node.func):
            caught = {name for argument in node.args for name in names_in(argument)}
            if caught & {"Exception", "BaseException"}:
                yield f"{node.lineno}: every error is suppressed"


def names_in(node: ast.AST) -> Iterator[str]:
    for child in ast.walk(node):
        if isinstance(child, ast.Name):
            yield child.id
        elif isinstance(child, ast.Attribute):
            yield child.attr


def does_nothing(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Pass | ast.Continue) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


def only_the_cli_prints(source: Source) -> Iterator[str]:
    inside = source.path.startswith(("engine/", "adapters/"))
    if inside and not re.match(r"adapters/refold_adapters/cli(_\w+)?(/|\.py$)", source.path):
        for node in source.walk():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                yield f"{node.lineno}: print"


def nothing_is_left_undone(source: Source) -> Iterator[str]:
    for number, line in enumerate(source.text.splitlines(), 1):
        if LEFT_UNDONE.search(line):
            yield f"{number}: {line.strip()}"


def modules_explain_themselves(source: Source) -> Iterator[str]:
    if source.text.strip() and not ast.get_docstring(source.tree):
        yield "1: no docstring"


def public_names_are_documented(source: Source) -> Iterator[str]:
    private = any(part.startswith("_") and part != "__init__.py" for part in Path(source.path).parts)
    if source.path.startswith(("engine/", "adapters/")) and not private:
        for node in source.tree.body:
            if isinstance(node, Definition) and not node.name.startswith("_") and not ast.get_docstring(node):
                overload = any("overload" in names_in(decorator) for decorator in node.decorator_list)
                if not overload:
                    yield f"{node.lineno}: {node.name} has no docstring"


def docstrings_say_more_than_the_name(source: Source) -> Iterator[str]:
    module = Path(source.path).stem
    named: list[tuple[int, str, str | None]] = [(1, module, ast.get_docstring(source.tree))]
    named += [(node.lineno, node.name, ast.get_docstring(node)) for node in source.definitions]
    for line, name, docstring in named:
        if docstring and not words(docstring) - words(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)):
            yield f"{line}: the docstring of {name} repeats its name"


def words(text: str) -> set[str]:
    """The words that say something, without the endings that a sentence puts on a name."""
    found = {re.sub(r"(ing|ed|es|s|e)$", "", word) for word in re.findall(r"[^\W_]+", text.lower())}
    return found - {re.sub(r"(ing|ed|es|s|e)$", "", word) for word in FILLER}


def no_workplace_is_named(source: Source) -> Iterator[str]:
    for number, line in enumerate(source.text.splitlines(), 1):
        if not source.path.startswith("tests/") and (found := WORKPLACE.search(line)):
            yield f"{number}: names {found.group()}"


PYTHON_RULES: list[Callable[[Source], Iterator[str]]] = [
    engine_stands_alone,
    pure_modules_do_no_io,
    pure_modules_read_no_clock,
    modules_are_short,
    functions_are_short,
    errors_are_not_swallowed,
    only_the_cli_prints,
    modules_explain_themselves,
    public_names_are_documented,
    docstrings_say_more_than_the_name,
]
TEXT_RULES: list[Callable[[Source], Iterator[str]]] = [nothing_is_left_undone, no_workplace_is_named]


@cache
def repository() -> list[Source]:
    """Every text file that people wrote."""
    paths = [path for path in ROOT.iterdir() if path.suffix in {".md", ".toml"}]
    for folder in ("engine", "adapters", "tests", "scripts", "docs", ".ci"):
        paths += [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    sources = []
    for path in sorted(paths):
        try:
            sources.append(Source(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            continue
    return sources


def is_python(source: Source) -> bool:
    return source.path.endswith(".py") or bool(re.match(r"#!.*python", source.text))


def findings(rule: Callable[[Source], Iterator[str]], sources: list[Source]) -> list[str]:
    return [f"{source.path}:{finding}" for source in sources for finding in rule(source)]


@pytest.mark.parametrize("rule", PYTHON_RULES, ids=lambda rule: rule.__name__)
def test_python_is_tidy(rule: Callable[[Source], Iterator[str]]) -> None:
    found = findings(rule, [source for source in repository() if is_python(source)])
    assert not found, "\n".join(found)


@pytest.mark.parametrize("rule", TEXT_RULES, ids=lambda rule: rule.__name__)
def test_text_is_tidy(rule: Callable[[Source], Iterator[str]]) -> None:
    found = findings(rule, [source for source in repository() if source.path != "tests/test_tidy.py"])
    assert not found, "\n".join(found)


def median_length(sources: list[Source]) -> float:
    """Of the modules of the two packages, leaving out empty ones."""
    modules = [source for source in sources if source.path.startswith(("engine/", "adapters/")) and is_python(source)]
    return median(len(source.text.splitlines()) for source in modules if source.text)


def test_the_median_module_is_short() -> None:
    assert median_length(repository()) <= MAX_MEDIAN


def test_the_median_leaves_tests_and_empty_files_out() -> None:
    long = [Source(f"engine/refold/m{n}.py", "x\n" * (MAX_MEDIAN + 1)) for n in range(3)]
    others = [Source(f"tests/m{n}.py", "x\n") for n in range(9)] + [Source("engine/refold/n.py", "")]
    assert median_length(long + others) == MAX_MEDIAN + 1


def test_the_repository_is_found() -> None:
    paths = {source.path for source in repository()}
    assert {"pyproject.toml", "engine/refold/vector.py", "scripts/test", ".ci/run", "tests/test_tidy.py"} <= paths
    assert any(path in PURE for path in paths)


ENGINE, PURE_ONE, ADAPTER = "engine/refold/engine.py", "engine/refold/vector.py", "adapters/refold_adapters/log.py"
BAD: list[tuple[Callable[[Source], Iterator[str]], str, str]] = [
    (engine_stands_alone, ENGINE, "import refold_adapters.log"),
    (engine_stands_alone, ENGINE, "def f():\n    from refold_adapters import log"),
    (engine_stands_alone, "engine/refold/testing/disk.py", "import aiosqlite"),
    (pure_modules_do_no_io, PURE_ONE, "import asyncio"),
    (pure_modules_do_no_io, PURE_ONE, "from os import path"),
    (pure_modules_do_no_io, PURE_ONE, "import pathlib"),
    (pure_modules_do_no_io, PURE_ONE, "from pathlib import Path"),
    (pure_modules_do_no_io, PURE_ONE, "from time import time"),
    (pure_modules_do_no_io, PURE_ONE, "import uuid, random"),
    (pure_modules_do_no_io, PURE_ONE, "open('x')"),
    (pure_modules_read_no_clock, PURE_ONE, "from datetime import datetime\ndef f(at=datetime.now()): ..."),
    (pure_modules_read_no_clock, PURE_ONE, "f(default_factory=date.today)"),
    (modules_are_short, ENGINE, "x\n" * (MAX_MODULE + 1)),
    (functions_are_short, ENGINE, "def f():\n" + "    x\n" * MAX_FUNCTION),
    (functions_are_short, ENGINE, "class A:\n  async def f():\n" + "    x\n" * MAX_FUNCTION),
    (errors_are_not_swallowed, ENGINE, "try: x\nexcept: raise"),
    (errors_are_not_swallowed, ENGINE, "try: x\nexcept Exception: pass"),
    (errors_are_not_swallowed, ENGINE, "try: x\nexcept (OSError, BaseException):\n    ..."),
    (errors_are_not_swallowed, ENGINE, "for x in y:\n  try: x\n  except builtins.Exception: continue"),
    (errors_are_not_swallowed, ENGINE, "with contextlib.suppress(Exception): x"),
    (only_the_cli_prints, ENGINE, "print(1)"),
    (only_the_cli_prints, "adapters/refold_adapters/clients.py", "print(1)"),
    (nothing_is_left_undone, ENGINE, "x = 1  # TODO: y"),
    (nothing_is_left_undone, "README.md", "FIXME"),
    (modules_explain_themselves, ENGINE, "x = 1"),
    (public_names_are_documented, ENGINE, "def f(): ..."),
    (public_names_are_documented, ADAPTER, "class A: ..."),
    (docstrings_say_more_than_the_name, ENGINE, '"""The engine."""'),
    (docstrings_say_more_than_the_name, ENGINE, 'def format_vector():\n    """Formats a vector."""'),
    (docstrings_say_more_than_the_name, ENGINE, 'class BadVectorError:\n    """Bad vector error."""'),
    (no_workplace_is_named, "docs/guide.md", "see /work/main/engine"),
    (no_workplace_is_named, "scripts/demo", "cat shared/DESIGN.md"),
]
GOOD: list[tuple[Callable[[Source], Iterator[str]], str, str]] = [
    (
        engine_stands_alone,
        ENGINE,
        "import asyncio, msgspec.json\nfrom refold.vector import join\nfrom .clock import x\nfrom . import y",
    ),
    (engine_stands_alone, ADAPTER, "import aiosqlite"),
    (pure_modules_do_no_io, PURE_ONE, "from pathlib import PurePosixPath\nimport re\nfrom .time import x"),
    (pure_modules_do_no_io, ENGINE, "import os, asyncio"),
    (pure_modules_read_no_clock, ENGINE, "time.monotonic()"),
    (modules_are_short, ENGINE, "x\n" * MAX_MODULE),
    (functions_are_short, ENGINE, "def f():\n" + "    x\n" * (MAX_FUNCTION - 1)),
    (errors_are_not_swallowed, ENGINE, "try: x\nexcept OSError: pass\nexcept Exception: log()"),
    (only_the_cli_prints, "adapters/refold_adapters/cli/show.py", "print(1)"),
    (only_the_cli_prints, "adapters/refold_adapters/cli.py", "print(1)"),
    (modules_explain_themselves, ENGINE, '"""Why."""'),
    (modules_explain_themselves, ENGINE, ""),
    (public_names_are_documented, ENGINE, "def _f(): ...\nclass _A: ..."),
    (public_names_are_documented, "engine/refold/_inner.py", "def f(): ..."),
    (docstrings_say_more_than_the_name, ENGINE, 'def join(a, b):\n    """The least vector that includes both."""'),
    (no_workplace_is_named, "docs/guide.md", "a network/shared folder; ~/homework/x; data/work/y"),
]


@pytest.mark.parametrize(("rule", "path", "text"), BAD)
def test_a_rule_finds_what_breaks_it(rule: Callable[[Source], Iterator[str]], path: str, text: str) -> None:
    assert list(rule(Source(path, text)))


@pytest.mark.parametrize(("rule", "path", "text"), GOOD)
def test_a_rule_leaves_the_rest_alone(rule: Callable[[Source], Iterator[str]], path: str, text: str) -> None:
    assert list(rule(Source(path, text))) == []


def test_every_rule_is_shown_to_fail() -> None:
    assert {rule for rule, _, _ in BAD} == {*PYTHON_RULES, *TEXT_RULES}

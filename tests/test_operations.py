"""The page for whoever runs it, and the files beside it that schedulers, containers and systemd read."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from refold_adapters.cli.app import app
from refold_adapters.old_commands.settings import KEYS, load

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/operations.md"
DEPLOY = ROOT / "docs/deploy"
COMMANDS = re.findall(r"^\$ (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
REFOLD = "/opt/refold/bin/refold"


def understood(words: list[str]) -> str:
    """The name of the command that these words call, every option of which it knows. Raises `click.UsageError`."""
    assert words[0] in ("refold", REFOLD)
    context = app.make_context("refold", words[1:])
    name, command, rest = app.resolve_command(context, [*context._protected_args, *context.args])
    assert command is not None
    while isinstance(command, click.Group):
        inner = command.make_context(str(name), rest, parent=context)
        name, command, rest = command.resolve_command(inner, [*inner._protected_args, *inner.args])
        context = inner
        assert command is not None
    command.make_context(str(name), rest, parent=context)
    return str(name)


def test_a_command_that_is_not_understood_is_seen() -> None:
    assert understood(["refold", "export", "--config", "x.json", "--quiet"]) == "export"
    assert understood(["refold", "-C", "x", "capture", "run"]) == "run"
    for words in ("refold exprot", "refold export --configuration x.json", "refold capture rnu"):
        with pytest.raises(click.UsageError):
            understood(shlex.split(words))


# The exercise


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="needs sqlite3")
def test_the_exercise_brings_everything_back(tmp_path: Path) -> None:
    tool = tmp_path / "bin/refold"
    tool.parent.mkdir()
    code = "from refold_adapters.cli import main; main()"
    tool.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{code}' \"$@\"\n", encoding="utf-8")
    tool.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tool.parent}:{os.environ['PATH']}"}
    printed: list[str] = []
    for command in COMMANDS:
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (command, done.stderr)
        printed.append(done.stdout)
    assert len(COMMANDS) > 10
    assert printed[-2] == "1|Groß GmbH\n2|Lenz\n"
    assert len(printed[-1].splitlines()) == 5
    assert sum("0 errors, 0 warnings" in text for text in printed[:-1]) == 5


def test_the_page_names_every_file_that_is_there_and_no_other() -> None:
    named = set(re.findall(r"\(deploy/([^)]+)\)", PAGE.read_text(encoding="utf-8")))
    there = {path.name for path in DEPLOY.iterdir()}
    assert named <= there
    spoken = {name for name in there if name.endswith((".service", ".timer"))} | {
        "werkstatt.container.json",
        "Dockerfile",
    }
    assert there - named <= spoken


def test_every_command_that_the_page_speaks_of_is_one() -> None:
    text = PAGE.read_text(encoding="utf-8").replace("\n", " ")
    for code in re.findall(r"`(refold [^`…]+)`", text):
        name = code.split()[1]
        assert name in app.commands, code


@pytest.mark.parametrize("name", ["werkstatt.json", "werkstatt.container.json"])
def test_settings_can_be_loaded(name: str) -> None:
    assert set(json.loads((DEPLOY / name).read_text(encoding="utf-8"))) <= set(KEYS)
    assert load(DEPLOY / name).archive.is_absolute()


# cron and logrotate

FIELDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


def jobs() -> Iterator[tuple[list[str], str, str]]:
    """The times, user and command of each line of the crontab."""
    for line in (DEPLOY / "refold.cron").read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#") and not re.match(r"[A-Z]+=", line):
            *times, user, command = line.split(None, 6)
            yield times, user, command


def test_the_crontab_has_times_a_user_and_commands_that_are_understood() -> None:
    found = list(jobs())
    for times, user, command in found:
        assert user == "refold" and "%" not in command
        for text, (low, high) in zip(times, FIELDS, strict=True):
            assert text == "*" or low <= int(text) <= high
    assert [understood(shlex.split(command)) for _, _, command in found] == ["export", "verify", "restore"]
    assert [times[2:] for times, _, _ in found] == [["*", "*", "*"], ["*", "*", "0"], ["1", "*", "*"]]
    assert "--dry-run" in found[2][2]
    assert (DEPLOY / "refold.cron").read_text(encoding="utf-8").endswith("\n")


def test_the_log_that_is_rotated_is_the_one_that_is_written() -> None:
    text = (DEPLOY / "refold.logrotate").read_text(encoding="utf-8")
    block = re.fullmatch(r"(?:#[^\n]*\n)*(\S+) \{\n((?:    [a-z]+[^\n{}]*\n)+)\}\n", text)
    assert block is not None
    log = load(DEPLOY / "werkstatt.json").log
    assert log is not None and log.match(block[1])
    assert "copytruncate" not in block[2]


@pytest.mark.skipif(shutil.which("logrotate") is None, reason="logrotate is not here; its file is parsed all the same")
def test_logrotate_takes_its_file(tmp_path: Path) -> None:
    log = tmp_path / "werkstatt.log"
    log.write_text("a line\n", encoding="utf-8")
    text = (DEPLOY / "refold.logrotate").read_text(encoding="utf-8")
    text = re.sub(r"    su .*\n", "", text).replace("/var/log/refold", str(tmp_path)).replace(" refold refold", "")
    (tmp_path / "config").write_text(text, encoding="utf-8")
    (tmp_path / "config").chmod(0o644)
    command = ["logrotate", "--force", "--state", str(tmp_path / "state"), str(tmp_path / "config")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "werkstatt.log.1").read_text(encoding="utf-8") == "a line\n"


# systemd


def unit(path: Path) -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(interpolation=None, delimiters=("=",), strict=True)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read_string(path.read_text(encoding="utf-8"))
    return parsed


TIMERS = sorted(DEPLOY.glob("*.timer"))
SERVICES = sorted(DEPLOY.glob("*.service"))


def test_every_timer_starts_a_service_that_is_there() -> None:
    for path in TIMERS:
        timer = unit(path)
        name = timer["Timer"]["Unit"]
        assert re.sub(r"@\w+", "@", name) in {service.name for service in SERVICES}
        assert timer["Install"]["WantedBy"] == "timers.target"
    assert len(TIMERS) == 3


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.name)
def test_a_service_runs_a_command_that_is_understood_as_a_user_with_few_rights(path: Path) -> None:
    service = unit(path)["Service"]
    instances = [re.sub(r".*@(\w+).*", r"\1", unit(timer)["Timer"]["Unit"]) for timer in TIMERS]
    for instance in [name for name in instances if "." not in name] if "@" in path.name else [""]:
        words = shlex.split(service["ExecStart"].replace("%i", instance))
        assert words[0] == REFOLD
        understood(words)
    assert (service["User"], service["NoNewPrivileges"], service["ProtectSystem"]) == ("refold", "yes", "strict")
    archive = str(load(DEPLOY / "werkstatt.json").archive)
    assert service["ReadWritePaths"] == archive == unit(path)["Unit"]["RequiresMountsFor"]


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here; the units are parsed all the same"
)
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for path in (*TIMERS, *SERVICES):
        text = path.read_text(encoding="utf-8").replace(REFOLD, "/bin/true")
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    names = [*(path.name for path in TIMERS), "refold-capture.service", "refold@export.service"]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", *(f"./{name}" for name in names)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    for path in TIMERS:
        when = unit(path)["Timer"]["OnCalendar"]
        assert subprocess.run(["systemd-analyze", "calendar", when], capture_output=True, check=False).returncode == 0


# containers


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile, an instruction and its arguments at a time."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


KNOWN = {
    *("FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"),
}


def stages() -> list[list[tuple[str, str]]]:
    found: list[list[tuple[str, str]]] = []
    for instruction, argument in instructions():
        if instruction == "FROM":
            found.append([])
        found[-1].append((instruction, argument))
    return found


def test_the_image_is_built_of_what_the_package_is_built_of() -> None:
    assert {instruction for instruction, _ in instructions()} <= KNOWN
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    copied = [
        source
        for instruction, argument in stages()[0]
        if instruction == "COPY"
        for source in argument.split()[:-1]
    ]  # fmt: skip
    assert all((ROOT / source).exists() for source in copied)
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    needed = ["pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]]
    assert {*needed, *(package.split("/")[0] for package in packages)} <= set(copied)
    extras = re.findall(r"\[(\w+)\]", " ".join(argument for _, argument in stages()[0] if "pip install" in argument))
    assert extras == ["cli"] and set(extras) <= set(project["project"]["optional-dependencies"])
    version = re.match(r"python:(\d+)\.(\d+)-slim", dict(stages()[0])["FROM"])
    assert version is not None and (int(version[1]), int(version[2])) >= (3, 11)
    assert dict(stages()[0])["FROM"].split()[0] == dict(stages()[1])["FROM"]


def test_the_image_runs_as_a_user_of_its_own_and_ends_in_order() -> None:
    last = stages()[-1]
    names = [instruction for instruction, _ in last]
    assert dict(last)["USER"] == "refold"
    assert all(names.index("USER") > index for index, name in enumerate(names) if name in ("RUN", "COPY"))
    created = [shlex.split(argument) for instruction, argument in last if instruction == "RUN"]
    assert any(words[0] == "useradd" and words[-1] == "refold" for words in created)
    assert set(json.loads(dict(last)["VOLUME"])) == {"/archive", "/var/log/refold"}
    assert set(json.loads(dict(last)["VOLUME"])) <= set(next(words for words in created if words[0] == "install"))
    assert dict(last)["STOPSIGNAL"] == "SIGINT"
    entry, command = json.loads(dict(last)["ENTRYPOINT"]), json.loads(dict(last)["CMD"])
    assert understood([*entry, *command]) == "run"
    health = re.fullmatch(r"(?:--[a-z-]+=\w+ )+CMD (.*) \|\| exit 1", dict(last)["HEALTHCHECK"])
    assert health is not None and understood(shlex.split(health[1])) == "status"


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    return loaded


def test_services_of_compose_have_commands_that_are_understood_and_a_root_that_is_read_only() -> None:
    services = compose()["services"]
    assert set(services) == {"job", "capture"}
    for service in services.values():
        understood(["refold", *service["command"]])
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"] and service["tmpfs"] == ["/tmp"]
        targets = [volume.split(":")[1] for volume in service["volumes"]]
        assert {"/archive", "/var/log/refold", "/etc/refold/werkstatt.json"} == set(targets)
        assert (DEPLOY / service["build"]["context"]).resolve() == ROOT
        assert (ROOT / service["build"]["dockerfile"]).is_file()
        named = {volume.split(":")[0] for volume in service["volumes"]}
        assert {name for name in named if not name.startswith((".", "/"))} <= set(compose()["volumes"])
        assert all((DEPLOY / name).exists() for name in named if name.startswith("."))


def test_the_settings_of_the_container_are_of_what_is_mounted_there() -> None:
    settings = load(DEPLOY / "werkstatt.container.json")
    mounted = [Path(volume.split(":")[1]) for volume in compose()["services"]["job"]["volumes"]]
    for path in (settings.db, settings.archive, settings.log):
        assert path is not None and any(path == place or place in path.parents for place in mounted)

"""The reference of the command line against the commands themselves, in both directions."""

import re
from pathlib import Path

import click
import pytest

from refold_adapters.cli.app import CODES, app

TEXT = (Path(__file__).parents[1] / "docs/cli.md").read_text(encoding="utf-8")
SECTIONS = {title: body for title, _, body in (part.partition("\n") for part in TEXT.split("\n## ")[1:])}
EVERYWHERE = SECTIONS["Everywhere"]


def family(command: click.Command) -> list[click.Command]:
    """A command and those below it, which share its section; of all of them, the first alone."""
    below = command.commands.values() if isinstance(command, click.Group) and command is not app else []
    return [command, *(found for part in below for found in family(part))]


def options(command: click.Command) -> set[str]:
    """Every spelling of every option that is shown."""
    params = [param for part in family(command) for param in part.params]
    shown = [param for param in params if isinstance(param, click.Option) and not param.hidden]
    return {name for param in shown for name in (*param.opts, *param.secondary_opts)}


def mentioned(text: str) -> set[str]:
    """The options that stand in code."""
    code = " ".join(re.findall(r"`([^`]+)`", text.replace("```", "`").replace("\n", " ")))
    return set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+|-[a-zA-Z])\b", code))


def test_every_command_has_a_section_and_every_section_a_command() -> None:
    assert {title.removeprefix("refold ") for title in SECTIONS if title.startswith("refold ")} == set(app.commands)


@pytest.mark.parametrize("name", sorted(app.commands))
def test_a_section_names_the_options_of_its_command_and_no_other(name: str) -> None:
    section = SECTIONS[f"refold {name}"]
    common = options(app) | {"--help", "-h"} | mentioned(EVERYWHERE.split("### Writing")[1])
    own = options(app.commands[name])
    assert own - mentioned(section) - common == set()
    others = {"import": {"--neutralise"}, "export": {"--neutralised"}}.get(name, set())
    assert mentioned(section) - own - options(app) - others == set()


def test_what_is_taken_everywhere_is_described_once() -> None:
    assert options(app) | {"-h", "--help"} <= mentioned(EVERYWHERE.split("### Settings")[0])


def test_exit_codes_and_variables_are_those_of_the_code() -> None:
    table = {int(code) for code in re.findall(r"^\| (\d+) \|", EVERYWHERE, re.MULTILINE)}
    assert {0, 1, 2, 3, 4, 5, 130, *CODES.values()} == table
    variables = {
        str(param.envvar)
        for command in (app, *app.commands.values())
        for part in family(command)
        for param in part.params
        if param.envvar is not None
    }
    assert variables == set(re.findall(r"REFOLD_[A-Z_]+", TEXT)) - {"REFOLD_"}


def test_every_command_and_option_explains_itself() -> None:
    for command in (part for found in app.commands.values() for part in family(found)):
        assert command.help
        for param in command.params:
            assert not isinstance(param, click.Option) or param.help, (command.name, param.name)

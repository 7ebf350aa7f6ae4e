"""The command line: `refold -C DIR COMMAND`, with the extra `[cli]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec

from refold.errors import ExtraMissing


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command and exits with its code."""
    try:
        if find_spec("rich") is None:
            raise ModuleNotFoundError(name="rich")
        from .app import run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in {"click", "rich"}:
            raise
        missing = ExtraMissing(error.name, "cli")
        sys.stderr.write(f"error: {missing}\nhint: {missing.hint.format(**missing.fields())}\n")
        sys.exit(1)
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))

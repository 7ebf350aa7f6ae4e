"""Who writes many records at once, and why."""

from __future__ import annotations

import msgspec


class Wording(msgspec.Struct, frozen=True):
    """Who writes, and why."""

    actor: str = ""
    reason: str | None = None

    @property
    def meta(self) -> dict[str, str]:
        """The reason, as an event carries it."""
        return {"reason": self.reason} if self.reason is not None else {}

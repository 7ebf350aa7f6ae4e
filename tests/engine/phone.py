"""A thin client for tests: it puts and forgets what pages tell it, and notes children that come before parents."""

from __future__ import annotations

from typing import Any

from refold import Engine, Page

Model = dict[tuple[str, str], dict[str, Any]]


async def tables(engine: Engine) -> Model:
    """What an archive's tables hold."""
    return {(name, record.key): record.values for name in sorted(engine.schemas) async for record in engine.find(name)}


class Phone:
    """A client that pulls: its records, its cursor, and what the pull under way has told so far."""

    def __init__(self, engine: Engine, **asked: Any) -> None:
        self.engine = engine
        self.asked = asked
        self.model: Model = {}
        self.versions: dict[tuple[str, str], str] = {}
        self.cursor = ""
        self.told: list[tuple[str, str]] = []
        self.pages: list[Page] = []
        self.orphans: set[tuple[str, str]] = set()

    async def page(self) -> Page:
        """Takes in one page."""
        page = await self.engine.pull(self.cursor, **self.asked)
        if not self.pages or not self.pages[-1].has_more:
            self.told, self.pages, self.orphans = [], [], set()
        for change in page.changes:
            record = change.collection, change.key
            self.model[record] = change.values
            self.versions[record] = change.version
            self.told.append(record)
            references = self.engine.schemas[change.collection].references
            for field, target in references.items():
                parent = target, str(change.values.get(field))
                if target != change.collection and parent not in self.model:
                    self.orphans.add(parent)
        for removed in page.deletions:
            self.model.pop((removed.collection, removed.key), None)
            self.told.append((removed.collection, removed.key))
        self.pages.append(page)
        self.cursor = page.next
        return page

    async def pull(self) -> Page:
        """Takes in a pull, or the rest of one."""
        while (page := await self.page()).has_more:
            pass
        return page

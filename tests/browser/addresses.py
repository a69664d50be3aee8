"""The pages that are visited: all of the console's."""

from __future__ import annotations

from tests.browser.world import World

from gravito.horizon.console._pages import PAGES

__all__ = ["PLACES", "address", "file_name"]

PLACES = [page.path for page in PAGES]


def address(world: World, page: str) -> str:
    """A page with its parameters filled in; of the jobs, one that is dead, which has most to show."""
    values = {name: world.ids[name] for name in ("batch", "chain")}
    return page.format(queue="default", id=world.ids["dead"], **values)


def file_name(page: str) -> str:
    """For its picture."""
    return page.strip("/").replace("/", "-").replace("{", "").replace("}", "") or "overview"

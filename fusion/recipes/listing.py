"""Listing of everything that the papers published: figures of the recipes, and the other systems of their tables."""

from collections.abc import Callable, Mapping
from dataclasses import asdict

from cache.errors import MmerError
from cache.near_names import nearest
from fusion.recipes.catalog import PAPER, RECIPES, Recipe
from fusion.recipes.comparison import aligned, published_table
from fusion.recipes.other_systems import OTHER_SYSTEMS, WITHOUT_TABLES, SystemTable

ALL = "all"


def list_published(which: str, format_fields: Callable[[Mapping[str, object]], str]) -> list[str]:
    """Formats the published figures of a recipe, or of all recipes with the other systems of their papers' tables.

    Args:
        which: name of a recipe, or ``all``.
        format_fields: function that formats the fields of a variant.

    Returns:
        Lines to print.

    Raises:
        MmerError: if the recipe is unknown.
    """
    names = _names(which)
    lines = [line for name in names for line in _recipe_lines(RECIPES[name], format_fields)]
    papers = {RECIPES[name].published.paper for name in names}
    for table in OTHER_SYSTEMS:
        if table.paper in papers:
            lines += _table_lines(table)
    return [*lines, *(f"other systems of {paper}: {why}" for paper, why in WITHOUT_TABLES.items() if paper in papers)]


def published_json(which: str) -> dict[str, object]:
    """Returns the published figures that `list_published` prints as plain values.

    Args:
        which: name of a recipe, or ``all``.

    Raises:
        MmerError: if the recipe is unknown.
    """
    names = _names(which)
    papers = {RECIPES[name].published.paper for name in names}
    return {
        "published": [{"recipe": name, **asdict(RECIPES[name].published)} for name in names],
        "other_systems": [asdict(table) for table in OTHER_SYSTEMS if table.paper in papers],
    }


def _names(which: str) -> list[str]:
    """Returns the names of the recipes to list.

    Raises:
        MmerError: if the recipe is unknown.
    """
    names = [*RECIPES] if which == ALL else [which.removesuffix(PAPER)]
    if names[0] not in RECIPES:
        raise MmerError(f"unknown recipe {which!r}; {nearest(names[0], [ALL, *RECIPES])}")
    return names


def _recipe_lines(settings: Recipe, format_fields: Callable[[Mapping[str, object]], str]) -> list[str]:
    published = settings.published
    recalls = [
        f"recalls of {row.what}: "
        + ", ".join([*(f"{name} {100 * recall:.2f}" for name, recall in row.by_class.items()), row.remark]).rstrip(", ")
        for row in published.recalls
    ]
    return [
        f"{settings.name}: {settings.fusion} on {settings.corpus}",
        *published_table(settings, format_fields),
        *recalls,
        *(f"note: {note}" for note in published.notes),
        "",
    ]


def _table_lines(table: SystemTable) -> list[str]:
    rows = [(row.system, row.modalities, *row.scores, f"{row.protocol}  {row.remark}".rstrip()) for row in table.rows]
    return [
        f"{table.table} of {table.paper}: {table.corpus}, in points as printed",
        *aligned([("system", "modalities", *table.columns, "protocol"), *rows]),
        *(f"note: {remark}" for remark in table.remarks),
        "",
    ]

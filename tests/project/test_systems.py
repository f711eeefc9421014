"""`docs/systems.md`: every row of the papers' result tables stands there with its scores and its command."""

import re
import shlex
from pathlib import Path

import click
import pytest

from cli.options import experiment_request
from cli.train import train
from fusion.evaluation.metrics import METRICS
from fusion.recipes.catalog import RECIPES
from fusion.recipes.published import DERIVED, PUBLISHED, Figure

PAGE = (Path(__file__).parents[2] / "docs" / "systems.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (?P<what>[^|\n]+) \| (?P<scores>[^`\n]+) \| `(?P<command>mmer-train [^`]+)` \|$", re.MULTILINE)
ROWS = [match.groupdict() for match in ROW.finditer(PAGE)]
FIVE = [name for name in PUBLISHED if not name.startswith(("superb", "emobox"))]
AGAIN = " --audio 'pre-*'"  # streams of encoders that were pre-trained again


def rows_of(recipe: str) -> list[dict[str, str]]:
    """Returns the rows whose command has a recipe, and the sum of its runs."""
    own = [row for row in ROWS if f"--recipe {recipe} " in row["command"]]
    return own + [row for row in ROWS if "--fusion score" in row["command"] and recipe.startswith("lemer")]


def options_of(command: str) -> dict[str, object]:
    """Returns the values of the options of a command."""
    return train.make_context("mmer-train", shlex.split(command)[1:]).params


def scores_text(figure: Figure) -> str:
    points = (f"{100 * figure.scores[name]:.2f}" if name in figure.scores else "-" for name in METRICS[:3])
    return " | ".join(points)


@pytest.mark.parametrize(
    ("recipe", "figure"),
    [(name, figure) for name in FIVE for figure in PUBLISHED[name].figures],
    ids=lambda value: value if isinstance(value, str) else value.what,
)
def test_every_figure_is_a_row_with_its_command(recipe: str, figure: Figure) -> None:
    what = f"{figure.what} (derived)" if figure.status == DERIVED else figure.what
    (row,) = (row for row in rows_of(recipe) if row["what"] == what)
    assert row["scores"] == scores_text(figure)
    options = options_of(row["command"].removesuffix(AGAIN))
    assert str(options["cache"]) == f"cache/{RECIPES[recipe].corpus}.h5"
    if figure.head:
        runs = [options_of(other["command"]).get("out") for other in ROWS if other["what"][:2] in figure.parts]
        assert (options["fusion"], list(options["runs"])) == (figure.head, runs)  # type: ignore[call-overload]
        return
    request = experiment_request(options, seeds=())  # type: ignore[arg-type]
    expected = {
        name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in figure.change.items()
    }
    assert (request.recipe, request.fields, request.streams) == (recipe, expected, figure.streams)


@pytest.mark.parametrize("recipe", FIVE)
def test_no_two_rows_of_different_settings_have_one_command(recipe: str) -> None:
    settings: dict[str, set[str]] = {}
    for row in rows_of(recipe):
        figures = [figure for figure in PUBLISHED[recipe].figures if row["what"].startswith(figure.what)]
        for figure in figures:
            key = str([sorted(figure.change.items()), sorted(figure.streams.items()), figure.head])
            settings.setdefault(row["command"].removesuffix(AGAIN), set()).add(key)
    assert [command for command, keys in settings.items() if len(keys) > 1] == []


def test_every_row_is_a_command_that_parses() -> None:
    assert len(ROWS) > 45
    for row in ROWS:
        try:
            options_of(row["command"])
        except click.UsageError as error:
            pytest.fail(f"{row['command']}: {error.message}")


def test_every_module_has_a_state_with_a_number_or_a_reason() -> None:
    states = re.findall(r"^\| .+ \| (.+) \|$", "\n".join(re.findall(r"\| module \| state \|\n(?:\|.*\n)+", PAGE)), re.M)
    states = [state for state in states if state not in {"state", "---"} and not set(state) <= set("-| ")]
    assert len(states) > 60
    for state in states:
        named = re.search(r"decisions\.md#|exact|not possible: .+|`fusion=cfa`|mmer-compare", state)
        assert named, state
        if "deviation" in state or "open" in state:
            assert "decisions.md#" in state, state

"""Every list is a table for people and one JSON object for programs."""

import json

import click
import pytest
from click.testing import CliRunner

from cli.extract import featurize
from cli.grid import grid
from cli.train import train
from featurize.corpora.catalog import CORPORA
from featurize.encoders.catalog import ENCODERS
from fusion.experiment.fields import list_fields
from fusion.heads.catalog import HEADS
from fusion.protocols.catalog import AUTO, GROUPS, PROTOCOLS
from fusion.recipes.catalog import RECIPES

LISTS = {
    "--list-heads": ("heads", list(HEADS)),
    "--list-recipes": ("recipes", list(RECIPES)),
    "--list-protocols": ("protocols", [*PROTOCOLS, GROUPS, AUTO]),
    "--list-fields rescmfa": ("fields", [name for name, *_ in list_fields("rescmfa")]),
}
OF_FEATURIZE = {
    "--list-encoders": ("encoders", list(ENCODERS)),
    "--list-corpora": ("corpora", list(CORPORA)),
}
EVERY = [
    *((train, options, *expected) for options, expected in LISTS.items()),
    *((grid, options, *expected) for options, expected in LISTS.items()),
    *((featurize, options, *expected) for options, expected in OF_FEATURIZE.items()),
]


def listings(command: click.Command) -> set[str]:
    return {text for one in command.params for text in one.opts if text.startswith("--list-")}


@pytest.mark.parametrize("command", [train, grid, featurize], ids=lambda command: command.name)
def test_every_list_is_in_the_table(command: click.Command) -> None:
    assert listings(command) == {options.split()[0] for known, options, *_ in EVERY if known is command}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(("command", "options", "key", "names"), EVERY)
def test_a_list_is_one_object_with_json(
    command: click.Command, options: str, key: str, names: list[str], first: bool
) -> None:
    arguments = ["--json", *options.split()] if first else [*options.split(), "--json"]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    assert list(json.loads(result.stdout)) == [key]
    assert [item["name"] for item in json.loads(result.stdout)[key]] == names


@pytest.mark.parametrize(("command", "options", "key", "names"), EVERY)
def test_a_list_without_json_names_everything(command: click.Command, options: str, key: str, names: list[str]) -> None:
    result = CliRunner().invoke(command, options.split())
    assert result.exit_code == 0, result.output
    assert not result.stdout.startswith("{")
    assert all(name in result.stdout for name in names)


def test_published_figures_are_numbers_with_json() -> None:
    result = CliRunner().invoke(train, ["--published", "gcf2net-iemocap", "--json"])
    (recipe,) = json.loads(result.stdout)["published"]
    assert recipe["recipe"] == "gcf2net-iemocap"
    first = RECIPES["gcf2net-iemocap"].published.figures[0]
    assert (recipe["figures"][0]["wa"], recipe["figures"][0]["ua"]) == (first.wa, first.ua)
    everything = json.loads(CliRunner().invoke(train, ["--published", "all", "--json"]).stdout)
    assert [one["recipe"] for one in everything["published"]] == list(RECIPES)
    assert everything["other_systems"]

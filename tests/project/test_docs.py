"""What the documents say must be so: commands parse, links lead somewhere, tables are whole."""

import re
import shlex
from contextlib import suppress
from pathlib import Path

import click
import pytest

from cli.compare import compare
from cli.export import export
from cli.extract import featurize
from cli.finetune import finetune
from cli.grid import grid
from cli.main import mmer
from cli.maintain import COMMANDS as CACHE_COMMANDS
from cli.maintain import cache
from cli.predict import predict
from cli.pretrain import pretrain
from cli.report import report
from cli.runs import runs
from cli.train import train
from featurize.corpora.catalog import CORPORA
from featurize.encoders.catalog import ENCODERS

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "benchmarks" / "README.md",
]
COMMANDS: dict[str, click.Command] = {
    "mmer-featurize": featurize,
    "mmer-cache": cache,
    "mmer-train": train,
    "mmer-finetune": finetune,
    "mmer-grid": grid,
    "mmer-compare": compare,
    "mmer-report": report,
    "mmer-runs": runs,
    "mmer-pretrain": pretrain,
    "mmer-predict": predict,
    "mmer-export": export,
    "mmer": mmer,
}


def shown_commands() -> list[str]:
    """The lines of console blocks that call a command of ours."""
    blocks = [
        block for document in DOCUMENTS for block in re.findall(r"```console\n(.*?)```", document.read_text(), re.S)
    ]
    lines = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    return sorted({line[line.index("mmer-") :] for line in lines if re.match(r"(timeout .*)?mmer-", line)})


@pytest.mark.parametrize("line", shown_commands())
def test_every_command_shown_is_one_that_runs(line: str) -> None:
    name, *arguments = shlex.split(line)
    command: click.Command | None = COMMANDS[name]
    while isinstance(command, click.Group):
        _, command, arguments = command.resolve_command(click.Context(command), arguments)
    assert command is not None
    with suppress(click.exceptions.Exit):  # --list-encoders and the like print and end
        command.make_context(name, arguments)


def test_commands_are_shown_at_all() -> None:
    assert len(shown_commands()) >= 8


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_that_are_there(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", document.read_text())
    assert not [link for link in links if "://" not in link and not (document.parent / link).exists()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_place_is_left_to_fill_in(document: Path) -> None:
    assert not re.findall(r"@@\w+@@|TO RECORD|TODO", document.read_text())


def test_the_readme_names_every_corpus_and_encoder() -> None:
    readme = (ROOT / "README.md").read_text()
    assert not [name for name in [*CORPORA, *ENCODERS] if name not in readme]


@pytest.mark.parametrize("document", DOCUMENTS[:-1], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_option_of_a_document_is_one_of_ours(document: Path) -> None:
    verbs = [cache.get_command(click.Context(cache), name) for name in CACHE_COMMANDS]
    known = {
        option
        for command in (featurize, train, grid, compare, report, runs, pretrain, predict, export, *verbs)
        if command
        for one in command.params
        for option in one.opts
    }
    known |= {option for one in featurize.params for option in one.secondary_opts}
    others = {"--constraint", "--editable", "--nworkers", "--nthreads"}  # of pip and dask
    assert set(re.findall(r"--[a-z][a-z-]+", document.read_text())) <= known | others

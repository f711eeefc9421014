"""``mmer-grid`` as a user types it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.grid import grid
from fusion.grid.journal import ENTRY
from tests.support.heads import TEXT_LAYER

STREAMS = ["--audio", "voice", "--text", f"words@{TEXT_LAYER}", "--protocol", "session", "--labels", "a=happy,b=sad"]
TWO_FOLDS = ["--only", "session=1+2"]  # of three
RECIPE = ["--recipe", "gcf2net-iemocap", "--set", "dim=8", *STREAMS, *TWO_FOLDS]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def typed(cache: Path, *options: str) -> Result:
    head = [] if "--fusion" in options or "--recipe" in options else ["--fusion", "audio"]
    quick = ["--batch-size", "16", "--epochs", "1"]
    return CliRunner().invoke(grid, ["--cache", str(cache), "--device", "cpu", *head, *quick, *options])


def done(result: Result) -> list[str]:
    assert result.exit_code == 0, result.stderr
    return result.stdout.splitlines()


def test_json_is_the_object_of_the_contract_and_nothing_else(trainable: Path, here: Path) -> None:
    told = json.loads(
        "\n".join(done(typed(trainable, "--grid", "lr=0.1,0.001", "--grid", "pooling=mean,max", "--json")))
    )
    assert {"rows", "nested", "winner", "engine", "seconds"} <= set(told)
    assert len(told["rows"]) == 4
    assert all(set(row["dev"]) == {"wa", "ua", "wf1", "mf1"} and {"config", "test"} <= set(row) for row in told["rows"])
    assert set(told["nested"]) == {"wa", "ua", "wf1", "mf1"}
    assert told["winner"] == told["rows"][0]["config"]
    assert told["rows"][0]["dev"]["wf1"] == max(row["dev"]["wf1"] for row in told["rows"])
    assert json.loads((Path(told["run"]) / "results.json").read_text()) == told


def test_tables_say_what_was_chosen_and_how(trainable: Path, here: Path) -> None:
    lines = done(typed(trainable, "--grid", "lr=0.1,0.001", "--seeds", "2"))
    assert lines[0].split()[:2] == ["rank", "lr"]
    assert lines[4].split()[:2] == ["fold", "winner"]
    assert lines[8].startswith("nested")
    text = "\n".join(lines)
    assert "best by mean dev: lr=" in text
    assert "not nested: the dev parts of other folds may hold this fold's test speakers" in text
    assert "95% interval of the nested score" in text
    folder = here / "runs" / f"{trainable.stem}-audio-grid" / "grids"
    (report,) = folder.iterdir()
    found = {path.name for path in report.iterdir()}
    assert {"grid.csv", "models.csv", "ablation.md", "ablation.tex", "results.json", "axis-lr.png"} <= found


def test_an_ablation_is_one_command(trainable: Path, here: Path) -> None:
    asked = [
        "--fusion",
        "concat",
        "--ablate",
        "modalities=audio,text",
        "--ablate",
        "dropout=0/adapter=false",
        *TWO_FOLDS,
    ]
    lines = done(typed(trainable, *asked, "--report-all-tests", "--latex"))
    text = "\n".join(lines)
    assert "tests of combinations that were not chosen are shown" in text
    assert r"\begin{tabular}" in text
    (report,) = (here / "runs" / f"{trainable.stem}-concat-grid" / "grids").iterdir()
    table = (report / "ablation.md").read_text()
    assert [row in table for row in ("modalities=audio", "modalities=text", "dropout=0.0 adapter=false")] == [True] * 3


def test_a_dry_run_says_what_it_would_take_and_trains_nothing(trainable: Path, here: Path) -> None:
    lines = done(typed(trainable, "--grid", "lr=0.1,0.001", "--dry-run"))
    assert lines[:2] == ["lr=0.1", "lr=0.001"]
    assert lines[2].startswith("2 combinations, 6 models, 0 of them in runs")
    assert "at most" in lines[4]
    assert not list(here.rglob(ENTRY))


def test_the_second_time_nothing_is_trained(trainable: Path, here: Path) -> None:
    first = done(typed(trainable, "--grid", "lr=0.1,0.001"))
    again = done(typed(trainable, "--grid", "lr=0.1,0.001"))
    assert again[:-1] == first[:-1]
    assert "all was in the journal" in again[-1]


def test_a_recipe_sets_what_no_axis_does(trainable: Path, here: Path) -> None:
    told = json.loads("\n".join(done(typed(trainable, *RECIPE, "--grid", "layers=1", "--json"))))
    assert (told["fusion"], told["winner"]) == ("rescmfa", {"layers": 1})


def test_the_variants_of_a_paper_are_one_word(trainable: Path, here: Path) -> None:
    asked = [*RECIPE, "--set", "layers=1", "--ablate", "published"]
    told = json.loads("\n".join(done(typed(trainable, *asked, "--json"))))
    configs = [row["config"] for row in told["rows"]]
    assert sorted(configs, key=str) == [{"global_aware": False}, {"modalities": "audio"}, {}]
    lines = done(typed(trainable, *asked))
    assert any(line.startswith("published: no global-aware block") and "global_aware=false" in line for line in lines)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--grid", "lr="], "lr has no value"),
        (["--grid", "lrr=0.1"], "no field 'lrr'; did you mean lr?"),
        (["--grid", "lr=0.1", "--lr", "0.2"], "lr is both an axis of the grid and set to a single value"),
        (["--grid", "seed=1,2"], "--seeds"),
        (["--seeds", "2", "--seed", "1"], "give only one of the two"),
        (["--engine", "dask"], "--engine dask needs --scheduler"),
        (["--scheduler", "tcp://a:1"], "no other engine accepts it"),
        (["--search", "random:0"], "random needs a number of combinations (1 or more)"),
        (["--search", "bayes:9"], "is not a search"),
        (["--ablate", "published"], "choose a --recipe with variants"),
        (["--grid", "pooling=sum"], "none of the 1 combinations can be trained; the first: pooling=sum"),
        (["--grid", "lr=1e-4..1e-2"], "--search random"),
        (["--grid-file", "nowhere.json"], "nowhere.json"),
        (["--fusion", "nope", "--grid", "lr=1"], "unknown head 'nope'"),
    ],
)
def test_rubbish_is_told_in_one_line(trainable: Path, here: Path, options: list[str], expected: str) -> None:
    result = typed(trainable, *options)
    assert result.exit_code == 1
    assert result.stdout == ""
    errors = [line for line in result.stderr.splitlines() if not line.startswith("note:")]
    assert len(errors) == 1
    assert expected in errors[0]

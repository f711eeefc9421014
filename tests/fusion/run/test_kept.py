"""What a repeated command keeps of the scores on other corpora, and that damaged scores are left out."""

import json
import shutil
from pathlib import Path

import pytest

from cache.joined import open_cache
from fusion.evaluation.classes import CLASSIFICATION
from fusion.experiment.request import ExperimentRequest
from fusion.run import train
from fusion.run.folder import RunFolder
from fusion.run.kept import kept_cross, kept_reference
from fusion.run.train import TrainedRun, train_run
from tests.support.runs import QUICK, TWO_FOLDS, other_corpus

OUTDATED = "were of other models and are left out; repeat the command with --test-cache"
SCORES = dict.fromkeys(CLASSIFICATION.names, 0.5)
WHOLE = {
    "name": "other",
    "test": 4,
    "notes": [],
    "models": [{"fold": "1", "seed": 0, **SCORES}],
    "mean": SCORES,
    "std": dict.fromkeys(CLASSIFICATION.names),
}


def trained(cache: Path, out: Path, *others: Path, seeds: tuple[int, ...] = (0,)) -> TrainedRun:
    request = ExperimentRequest(fusion="audio", fields={**QUICK, "epochs": 1}, seeds=seeds, **TWO_FOLDS)
    test_caches = [open_cache(other) for other in others]
    return train_run(request.experiment(open_cache(cache)), open_cache(cache), out=out, test_caches=test_caches)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The voices of another corpus; nobody writes to them."""
    return other_corpus(tmp_path_factory.mktemp("other") / "other.h5", {}, roles=["audio"])


def test_a_repeated_run_keeps_its_scores_on_other_corpora(trainable: Path, other: Path, tmp_path: Path) -> None:
    first, second = (Path(shutil.copy(other, tmp_path / f"{name}.h5")) for name in ("first", "second"))
    out = tmp_path / "run"
    scored = trained(trainable, out, first)
    again = trained(trainable, out)
    assert again == scored
    assert again.cross_table is not None
    assert json.loads((out / "results.json").read_text()) == scored.results
    assert "On first (" in (out / "results.md").read_text()
    both = trained(trainable, out, second)
    assert [held["name"] for held in both.results["cross"]] == ["first", "second"]
    assert both.results["cross"][0] == scored.results["cross"][0]
    assert [held["name"] for held in trained(trainable, out, first).results["cross"]] == ["second", "first"]


def test_a_kill_before_the_end_loses_no_scores_on_other_corpora(
    trainable: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    scored = trained(trainable, out, other)

    def killed(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "finish_run", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(trainable, out)
    monkeypatch.undo()
    assert trained(trainable, out) == scored


def test_an_added_seed_makes_scores_on_other_corpora_out_of_date(trainable: Path, other: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    trained(trainable, out, other)
    more = trained(trainable, out, seeds=(0, 1))
    assert "cross" not in more.results
    assert f"the scores on other {OUTDATED}" in more.results["notes"]
    scored = trained(trainable, out, other, seeds=(0, 1))
    assert len(scored.results["cross"][0]["models"]) == 4
    assert not [note for note in scored.results["notes"] if OUTDATED in note]


@pytest.mark.parametrize(
    "cross",
    [
        None,
        [None],
        {"name": "other"},
        [{**WHOLE, "name": 3}],
        [{**WHOLE, "models": [{"fold": "1"}]}],
        [{**WHOLE, "mean": {}}],
        [{**WHOLE, "std": None}],
        [{**WHOLE, "notes": None}],
        [{**WHOLE, "final": {"mean": SCORES}}],
    ],
)
def test_damaged_scores_on_other_corpora_are_left_out(tmp_path: Path, cross: object) -> None:
    (tmp_path / "results.json").write_text(json.dumps({"cross": cross}))
    assert kept_cross(RunFolder(tmp_path), CLASSIFICATION, [("1", 0)], scored=[]) == ([], [])


def test_whole_scores_are_kept(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps({"cross": [WHOLE]}))
    folder = RunFolder(tmp_path)
    assert kept_cross(folder, CLASSIFICATION, [("1", 0)], scored=[]) == ([WHOLE], [])
    assert kept_cross(folder, CLASSIFICATION, [("1", 0)], scored=["other"]) == ([], [])
    assert kept_cross(folder, CLASSIFICATION, [("2", 0)], scored=[]) == ([], [f"the scores on other {OUTDATED}"])


@pytest.mark.parametrize(
    "reference", [None, [], {"fusion": "probe"}, {"fusion": "probe", "mean": {"wa": "x"}, "pooled": {}, "interval": {}}]
)
def test_a_damaged_reference_is_left_out(tmp_path: Path, reference: object) -> None:
    (tmp_path / "results.json").write_text(json.dumps({"reference": reference}))
    assert kept_reference(RunFolder(tmp_path), CLASSIFICATION) == {}
    assert kept_reference(RunFolder(tmp_path / "none"), CLASSIFICATION) == {}

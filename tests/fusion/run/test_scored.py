import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from cache.errors import MmerError
from fusion.evaluation.metrics import METRICS as SCORES
from fusion.experiment.plan import RunPlan
from fusion.fingerprint import digest_of
from fusion.run import cross_validation as crossval
from fusion.run.artifacts import find_damage, read_cost, read_predictions, read_probabilities, read_scores
from fusion.run.cross_validation import cross_validate
from fusion.run.folder import ModelFolder, RunFolder
from tests.support.heads import CLASSES
from tests.support.runs import CPU, TWO_FOLDS, Told, files_of, finish, plan

NAMES = sorted(CLASSES)


@pytest.fixture(scope="module")
def planned(trainable: Path) -> RunPlan:
    return plan(trainable, "audio", **TWO_FOLDS)


@pytest.fixture(scope="module")
def run(planned: RunPlan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored") / "run"
    finish(planned, folder)
    return folder


@pytest.fixture
def part(run: Path, tmp_path: Path) -> ModelFolder:
    return RunFolder(Path(shutil.copytree(run, tmp_path / "run"))).model("1", 0)


def cut(path: Path, share: float = 0.5) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])


def test_what_is_whole_is_read(part: ModelFolder) -> None:
    assert find_damage(part, NAMES) == ""
    assert read_scores(part)["test"] == len(read_predictions(part, NAMES)) == len(read_probabilities(part, NAMES))
    assert read_cost(part)[0] > 0


def changed(**fields: object) -> Callable[[Path], None]:
    """Changes scores that keep no digests."""

    def act(path: Path) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), "digests": {}, **fields}))

    return act


def edited(name: str) -> Callable[[Path], None]:
    """Changes one of the scores."""

    def act(path: Path) -> None:
        scores = json.loads(path.read_text())
        value = scores[name]
        scores[name] = [*value, "u99"] if isinstance(value, list) else "2" if isinstance(value, str) else 0.125
        path.write_text(json.dumps(scores))

    return act


def without(name: str) -> Callable[[Path], None]:
    def act(path: Path) -> None:
        path.write_text(json.dumps({key: one for key, one in json.loads(path.read_text()).items() if key != name}))

    return act


def lose_ids(path: Path) -> None:
    path.write_text(path.read_text().replace("id,", "name,", 1))


def surer(path: Path) -> None:
    path.write_text(path.read_text().replace(",0.", ",0.0"))


def other_weights(path: Path) -> None:
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path)


def swap(path: Path) -> None:
    path.write_text(path.read_text().replace("angry", "ANGRY"))


DAMAGES: list[tuple[str, Callable[[Path], Any], str]] = [
    ("scores.json", cut, "scores.json cannot be read"),
    (
        "scores.json",
        lambda path: path.write_text("{}"),
        r"scores.json is damaged \(a value is missing or has the wrong type\)",
    ),
    ("scores.json", lambda path: path.write_text("[]"), "scores.json is damaged"),
    *(
        ("scores.json", edited(name), r"scores.json is damaged \(it has changed since it was written\)")
        for name in ("fold", "seed", "epoch", "train", "ua", "test_of", "parameters", "over_limits", "notes")
    ),
    (
        "scores.json",
        changed(ua=0.999),
        r"predictions.csv is damaged \(they do not reproduce the scores",
    ),
    (
        "scores.json",
        changed(ua=float("nan")),
        r"predictions.csv is damaged \(they do not reproduce the scores",
    ),
    *(
        ("scores.json", without(name), r"scores.json is damaged \(a value is missing or has the wrong type\)")
        for name in ("notes", "over_limits", "test_of")
    ),
    ("predictions.csv", lambda path: path.write_bytes(bytes(400)), "predictions.csv (is damaged|cannot be read)"),
    ("predictions.csv", cut, r"predictions.csv is damaged \(1\d of 24 utterances\)"),
    ("predictions.csv", Path.unlink, "predictions.csv cannot be read"),
    ("predictions.csv", swap, r"predictions.csv is damaged \(not the columns and classes of the run\)"),
    ("predictions.csv", lose_ids, r"predictions.csv is damaged \(not the columns and classes of the run\)"),
    ("predictions.csv", surer, r"predictions.csv is damaged \(it has changed since scores.json was written\)"),
    ("predictions.csv", lambda path: path.write_text("x" * 200_000), r"predictions.csv cannot be read \(field larger"),
    ("weights.safetensors", other_weights, r"weights.safetensors is damaged \(it has changed since scores.json"),
    ("weights.safetensors", cut, "weights.safetensors is damaged"),
    ("weights.safetensors", Path.unlink, r"weights.safetensors cannot be read \(No such file or directory"),
]


@pytest.mark.parametrize("case", DAMAGES, ids=lambda case: case[0])
def test_what_is_damaged_is_told_and_trained_anew_to_the_same_bits(
    planned: RunPlan, run: Path, part: ModelFolder, case: tuple[str, Callable[[Path], Any], str]
) -> None:
    name, act, told = case
    act(part.path / name)
    with pytest.raises(MmerError, match=told):
        raise MmerError(find_damage(part, NAMES))
    watcher, folder = Told(), part.path.parent
    before = {path.name: path.read_bytes() for path in part.path.iterdir()}
    with pytest.raises(KeyboardInterrupt):  # nothing is lost before it is trained
        cross_validate(
            planned,
            RunFolder(folder),
            device=CPU,
            progress=watcher,
            stopping=lambda: True,
        )
    assert {path.name: path.read_bytes() for path in part.path.iterdir()} == before
    cross_validate(planned, RunFolder(folder), device=CPU, progress=watcher)
    assert [one for one in watcher.started if one[0] != "end"] == [("1", 0)]
    assert any(name in note for note in watcher.notes)
    mine, theirs = files_of(folder), files_of(run)
    assert {key: mine[key] for key in theirs if "seed" in key} == {key: theirs[key] for key in theirs if "seed" in key}


def test_a_run_of_old_keeps_no_digests(part: ModelFolder) -> None:
    without("digests")(part.path / "scores.json")
    other_weights(part.path / "weights.safetensors")
    assert find_damage(part, NAMES) == ""


def older(part: ModelFolder) -> str:
    """Removes macro F1 from the scores of a model, as the version before wrote them."""
    scores = part.read("scores.json")
    kept = {name: value for name, value in scores.items() if name not in {"mf1", "digests"}}
    kept["dev_scores"] = {name: value for name, value in kept["dev_scores"].items() if name != "mf1"}
    digests = {**scores["digests"], "scores.json": digest_of(kept)}
    part.write("scores.json", {**kept, "digests": digests})
    return (part.path / "scores.json").read_text()


def test_a_score_that_an_older_version_did_not_write_follows_from_the_predictions(
    planned: RunPlan, run: Path, part: ModelFolder
) -> None:
    written = read_scores(part)
    before = older(part)
    found = read_scores(part)
    assert list(found) == list(written)
    assert {name: found[name] for name in SCORES} == {name: written[name] for name in SCORES}
    assert find_damage(part, NAMES) == ""
    watcher, folder = Told(), part.path.parent
    results = finish(planned, folder, watcher)
    assert watcher.started == []
    assert (part.path / "scores.json").read_text() == before
    expected = RunFolder(run).read("results.json")
    assert {name: results[name] for name in ("mean", "std", "pooled", "interval")} == {
        name: expected[name] for name in ("mean", "std", "pooled", "interval")
    }


def test_a_score_that_is_missing_from_what_was_written_is_damage(part: ModelFolder) -> None:
    without("mf1")(part.path / "scores.json")
    with pytest.raises(MmerError, match=r"scores.json is damaged \(it has changed since it was written\)"):
        read_scores(part)


def test_predictions_that_no_older_score_follows_from_are_damage(part: ModelFolder) -> None:
    older(part)
    surer(part.path / "predictions.csv")
    with pytest.raises(MmerError, match=r"predictions.csv is damaged \(it has changed since scores.json was written\)"):
        read_scores(part)
    assert "predictions.csv is damaged" in find_damage(part, NAMES)


def test_scores_do_not_outlive_the_weights_that_they_are_of(
    planned: RunPlan, run: Path, part: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    without("digests")(part.path / "scores.json")
    cut(part.path / "weights.safetensors")
    asked, folder = planned, RunFolder(part.path.parent)
    with monkeypatch.context() as patched:
        patched.setattr(crossval, "score_test_subset", lambda *_, **__: 1 / 0)  # a kill before the test part was scored
        with pytest.raises(ZeroDivisionError):
            cross_validate(asked, folder, device=CPU, progress=Told())
    assert not (part.path / "scores.json").exists()
    cross_validate(asked, folder, device=CPU, progress=Told())
    theirs = RunFolder(run).model("1", 0).path
    for name in ("weights.safetensors", "predictions.csv", "scores.json"):
        assert (part.path / name).read_bytes() == (theirs / name).read_bytes()


def test_a_probability_that_is_none_is_told(part: ModelFolder) -> None:
    without("digests")(part.path / "scores.json")
    path = part.path / "predictions.csv"
    path.write_text(path.read_text().replace("p_sad", "p_glad"))
    with pytest.raises(MmerError, match=r"predictions.csv is damaged \(missing or invalid probability: 'p_sad'\)"):
        read_probabilities(part, NAMES)


BESIDE: list[tuple[str, Callable[[Path], Any], str]] = [
    ("cost.json", Path.unlink, r"cost.json cannot be read \(No such file or directory\)"),
    ("cost.json", lambda path: path.write_text("{}"), r"cost.json is damaged \(missing or invalid value: 'seconds'\)"),
    ("cost.json", lambda path: path.write_text('{"seconds": 1, "peak_bytes": Infinity}'), "cost.json is damaged"),
    ("curves.csv", Path.unlink, r"curves.csv cannot be read \(No such file or directory\)"),
    ("curves.csv", cut, r"curves.csv is damaged \(it has changed since scores.json was written\)"),
]


@pytest.mark.parametrize("case", BESIDE, ids=lambda case: case[0])
def test_nothing_is_trained_anew_for_a_file_that_no_score_depends_on(
    planned: RunPlan, part: ModelFolder, case: tuple[str, Callable[[Path], Any], str]
) -> None:
    name, act, told = case
    act(part.path / name)
    watcher, folder = Told(), part.path.parent
    cross_validate(planned, RunFolder(folder), device=CPU, progress=watcher)
    assert watcher.started == []
    way_out = ".*; delete .*1-seed0/scores.json to train the model again"
    assert any(re.search(told + way_out, note) for note in watcher.notes)


@pytest.mark.parametrize("name", ["scores.json", "predictions.csv", "weights.safetensors"])
def test_what_cannot_be_read_just_now_is_no_damage(part: ModelFolder, name: str) -> None:
    (part.path / name).unlink()
    (part.path / name).mkdir()
    with pytest.raises(MmerError, match=rf"{name} cannot be read \(not a regular file\); make it readable and repeat"):
        find_damage(part, NAMES)

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cache.errors import MmerError
from fusion.crossval import cross_validate
from fusion.run import RunFolder
from fusion.scored import damage, read_cost, read_predictions, read_probabilities, read_scores
from tests.heads import CLASSES
from tests.runs import CPU, Told, files_of, finish, plan

NAMES = sorted(CLASSES)


@pytest.fixture(scope="module")
def run(trainable: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored") / "run"
    finish(plan(trainable, "audio"), folder)
    return folder


@pytest.fixture
def part(run: Path, tmp_path: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(run, tmp_path / "run"))).part("1", 0)


def cut(path: Path, share: float = 0.5) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])


def test_what_is_whole_is_read(part: RunFolder) -> None:
    assert damage(part, NAMES) == ""
    assert read_scores(part)["test"] == len(read_predictions(part, NAMES)) == len(read_probabilities(part, NAMES))
    assert read_cost(part)[0] > 0


def change_score(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "ua": 0.999}))


def swap(path: Path) -> None:
    path.write_text(path.read_text().replace("angry", "ANGRY"))


DAMAGES: list[tuple[str, Callable[[Path], Any], str]] = [
    ("scores.json", cut, "scores.json cannot be read"),
    ("scores.json", lambda path: path.write_text("{}"), r"scores.json is damaged \(something is missing\)"),
    ("scores.json", lambda path: path.write_text("[]"), "scores.json is damaged"),
    ("scores.json", change_score, r"predictions.csv is damaged \(they do not give what scores.json says\)"),
    ("predictions.csv", cut, r"predictions.csv is damaged \(1\d of 24 utterances\)"),
    ("predictions.csv", Path.unlink, "predictions.csv cannot be read"),
    ("predictions.csv", swap, r"predictions.csv is damaged \(not the classes of the run\)"),
    ("weights.safetensors", cut, "weights.safetensors is damaged"),
    ("weights.safetensors", Path.unlink, "weights.safetensors is damaged"),
    ("cost.json", lambda path: path.write_text("{}"), r"cost.json is damaged \(no 'seconds'\)"),
    ("curves.csv", Path.unlink, "curves.csv cannot be read"),
]


@pytest.mark.parametrize("case", DAMAGES, ids=lambda case: case[0])
def test_what_is_damaged_is_told_and_trained_anew_to_the_same_bits(
    trainable: Path, run: Path, part: RunFolder, case: tuple[str, Callable[[Path], Any], str]
) -> None:
    name, act, told = case
    act(part.path / name)
    with pytest.raises(MmerError, match=told):
        raise MmerError(damage(part, NAMES))
    watcher, folder = Told(), part.path.parent
    cross_validate(plan(trainable, "audio"), RunFolder(folder), device=CPU, watcher=watcher)
    assert [one for one in watcher.started if one[0] != "end"] == [("1", 0)]
    assert any(name in note for note in watcher.notes)
    mine, theirs = files_of(folder), files_of(run)
    assert {key: mine[key] for key in theirs if "seed" in key} == {key: theirs[key] for key in theirs if "seed" in key}


def test_a_probability_that_is_none_is_told(part: RunFolder) -> None:
    path = part.path / "predictions.csv"
    path.write_text(path.read_text().replace("p_sad", "p_glad"))
    with pytest.raises(MmerError, match=r"predictions.csv is damaged \(no probability: 'p_sad'\)"):
        read_probabilities(part, NAMES)

"""A grid as a whole: what it chooses, which tests it opens, and that nothing peeks at the others."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from cache.errors import MmerError
from fusion.grid.combinations import models_of
from fusion.grid.report.output import grid_report
from fusion.grid.session import GridResults, GridSession
from fusion.grid.space import parse_search, read_space
from fusion.run.folder import PREDICTIONS
from tests.support.grids import models, planned, session
from tests.support.runs import TWO_FOLDS, scramble

GRID = "lr=0.03,0.001"


def run(made: GridSession, *grid: str, search: str = "grid", all_tests: bool = False) -> GridResults:
    return made.run(read_space("audio", grid=grid), parse_search(search), seed=0, all_tests=all_tests)


def opened(folder: Path) -> int:
    return len(list(folder.glob(f"models/*/{PREDICTIONS}")))


def test_only_each_folds_winner_is_scored_on_test(trainable: Path, tmp_path: Path) -> None:
    made, _ = session(trainable, "audio", tmp_path, seeds=(0, 1), **TWO_FOLDS)
    found = run(made, "lr=0.03,0.01,0.001")
    assert len(found.scores) == 3 * 2 * 2
    assert opened(tmp_path) == 2 * 2
    for one in found.scores:
        own = [other for other in found.scores if (other.fold, other.combination) == (one.fold, one.combination)]
        assert (one.test is not None) == (found.winners[one.fold] == one.combination)
        dev = np.mean([other.dev["wf1"] for other in own])
        best = [other for other in found.scores if other.fold == one.fold]
        if one.test is not None:
            assert dev == max(
                np.mean([other.dev["wf1"] for other in best if other.combination == place]) for place in range(3)
            )
    assert found.interval["ua"] is not None


def test_a_grid_may_choose_by_macro_f1(trainable: Path, tmp_path: Path) -> None:
    made, _ = session(trainable, "audio", tmp_path)
    found = run(made, "lr=0.03,0.001", "monitor=mf1")
    for fold, chosen in found.winners.items():
        dev = {one.combination: one.dev["mf1"] for one in found.scores if one.fold == fold}
        assert dev[chosen] == max(dev.values())
    report = grid_report(found, made.journal, made.cache, engine="shared")
    report.write()
    assert (report.json["monitor"], list(report.json["nested"])) == ("mf1", ["wa", "ua", "wf1", "mf1"])
    means = [row["dev"]["mf1"] for row in report.json["rows"]]
    assert means == sorted(means, reverse=True)
    assert (report.folder.path / "axis-lr.png").exists()
    assert any(", M-F1 " in line for line in report.lines if line.startswith("95% interval"))
    assert report.json["notes"][0] == "the interval is over 6 speakers or dialogues: too few to say much"
    assert report.json["notes"][0] in report.limits
    assert report.json["protocol_name"] == "leave one session out"


def test_tests_that_were_opened_before_stay_out_of_sight(trainable: Path, tmp_path: Path) -> None:
    made, _ = session(trainable, "audio", tmp_path)
    everything = run(made, GRID, all_tests=True)
    assert opened(tmp_path) == 6
    assert all(one.test for one in everything.scores)
    again, told = session(trainable, "audio", tmp_path)
    found = run(again, GRID)
    assert told.started == []
    assert sum(one.test is not None for one in found.scores) == 3
    assert found.winners == everything.winners


def test_what_lies_in_test_parts_decides_nothing(trainable: Path, tmp_path: Path) -> None:
    whole, scrambled = trainable, Path(shutil.copy(trainable, tmp_path / "b.h5"))
    (plan,) = [one.plan for one in planned(whole, "audio", {}, **TWO_FOLDS)]
    scramble(scrambled, plan.split.folds[0].test.tolist())
    found = []
    for cache in (whole, scrambled):
        made, _ = session(cache, "audio", tmp_path / cache.stem, **TWO_FOLDS)
        found.append(run(made, GRID))
    first = [[one.dev for one in grid.scores if one.fold == "1"] for grid in found]
    assert first[0] == first[1]
    assert found[0].winners["1"] == found[1].winners["1"]
    tests = [[one.test for one in grid.scores if one.fold == "1" and one.test] for grid in found]
    assert tests[0] != tests[1]  # the scramble does change them


def test_a_value_more_trains_only_what_is_new(trainable: Path, tmp_path: Path) -> None:
    made, _ = session(trainable, "audio", tmp_path)
    run(made, GRID)
    again, told = session(trainable, "audio", tmp_path)
    found = run(again, "lr=0.03,0.001,0.1")
    assert len(told.started) == 3
    assert [one.fields for one in found.combinations] == [{"lr": 0.03}, {"lr": 0.001}, {"lr": 0.1}]


def test_impossible_combinations_are_told_and_left_out(trainable: Path, tmp_path: Path) -> None:
    made, told = session(trainable, "audio", tmp_path)
    found = run(made, "lr=0.03,-1", "epochs=1")
    assert [one.fields["lr"] for one in found.combinations] == [0.03]
    assert [note for note in told.notes if note.startswith("skipped: lr=-1")]
    assert [one.fields["lr"] for one in found.skipped] == [-1]


def test_a_fold_where_everything_failed_is_an_error(trainable: Path, tmp_path: Path) -> None:
    made, _ = session(trainable, "audio", tmp_path)
    with pytest.raises(MmerError, match=r"fold 1 .*first: diverged: the l"):
        run(made, "lr=1e30", "clip=0")


def test_a_sample_is_part_of_the_grid(trainable: Path, tmp_path: Path) -> None:
    made, _ = session(trainable, "audio", tmp_path)
    found = run(made, "lr=log:1e-3..1e-1", "pooling=mean,max", search="random:3")
    assert len(found.combinations) == 3
    assert len({str(one.fields) for one in found.combinations}) == 3


def test_tpe_searches_each_fold_by_its_own_dev(trainable: Path, tmp_path: Path) -> None:
    whole, scrambled = trainable, Path(shutil.copy(trainable, tmp_path / "b.h5"))
    (plan,) = [one.plan for one in planned(whole, "audio", {}, **TWO_FOLDS)]
    first, *others = plan.split.folds
    scramble(scrambled, first.test.tolist())
    proposed = []
    for cache in (whole, scrambled):
        made, _ = session(cache, "audio", tmp_path / cache.stem, **TWO_FOLDS)
        found = run(made, "lr=log:1e-3..1e-1", "dropout=0..0.5", search="tpe:4")
        trained = [
            one.fields
            for one in found.combinations
            for model in models_of(one, folds=["1"])
            if made.journal.holds(model)
        ]
        proposed.append(trained)
        assert set(found.winners) == {first.name, *(fold.name for fold in others)}
        assert len(trained) == 4
    assert proposed[0] == proposed[1]


def test_all_models_of_a_grid_are_known_by_their_keys(trainable: Path, tmp_path: Path) -> None:
    made, told = session(trainable, "audio", tmp_path)
    found = run(made, GRID)
    assert set(told.started) == {model.key for model in models(found.combinations)}


def test_what_heads_note_is_told_with_the_combinations_it_holds_for(trainable: Path, tmp_path: Path) -> None:
    made, _ = session(trainable, "bimodal", tmp_path, **TWO_FOLDS)
    space = read_space("bimodal", grid=["alpha=0.1", "epochs=1", "dim=8"], ablate=["tasks=none"])
    found = made.run(space, parse_search("grid"), seed=0)
    assert len(found.notes) == 3  # and one on the interval
    assert found.notes[1].startswith("auxiliary tasks: cpc (weight 0.1), supervised (weight 0.1) (of alpha=0.1")
    assert found.notes[2].startswith("auxiliary tasks: none (of ")

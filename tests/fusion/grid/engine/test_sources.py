"""Features are held once for all combinations that can share them."""

from pathlib import Path

import numpy as np

from tests.support.grids import planned, sources


def test_combinations_of_other_modalities_share_their_features(trainable: Path) -> None:
    every = planned(trainable, "concat", {}, {"modalities": "audio"}, {"modalities": "text", "lr": 0.1})
    shared = sources(every)
    assert len(shared) == 1
    assert shared.of(every[0].plan) is shared.of(every[2].plan)
    assert set(shared.at(0).streams) == {"audio", "text"}
    assert shared.size_bytes == shared.at(0).size_bytes > 0


def test_another_stream_for_a_role_has_features_of_its_own(trainable: Path) -> None:
    every = planned(trainable, "audio", {}, {"stream.audio": "logmel80"}, {"dropout": 0.3})
    shared = sources(every)
    assert [shared.index(one.plan) for one in every] == [0, 1, 0]
    assert shared.of(every[1].plan).streams["audio"].spec.name == "logmel80"


def test_all_utterances_of_all_folds_are_there(trainable: Path) -> None:
    every = planned(trainable, "audio", {}, {"lr": 0.1})
    folds = every[0].plan.split.folds
    found = sources(every).at(0).chosen
    assert set(found) == {index for fold in folds for part in fold.subsets.values() for index in part}
    assert np.array_equal(found, np.unique(found))


def test_what_was_read_stays_when_plans_are_added_that_need_no_more(trainable: Path) -> None:
    first, same, more = planned(trainable, "concat", {"modalities": "audio"}, {"modalities": "audio", "lr": 0.1}, {})
    shared = sources([first])
    held = shared.of(first.plan)
    shared.add(same.plan)
    assert shared.of(same.plan) is held
    shared.add(more.plan)
    assert set(shared.of(more.plan).streams) == {"audio", "text"}
    assert len(shared) == 1

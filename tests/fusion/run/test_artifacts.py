from pathlib import Path

import numpy as np

from cache.joined import open_cache
from fusion.run.artifacts import OVER_LIMITS
from fusion.run.folder import RunFolder
from tests.support.runs import finish, plan


def test_utterances_that_a_head_cannot_take_in_full_are_listed_for_every_part(trainable: Path, tmp_path: Path) -> None:
    cache, asked = open_cache(trainable), {"sgu": "dense", "audio_slots": "20", "epochs": "1"}
    results = finish(plan(trainable, "rescmfa", asked), tmp_path)
    long = np.flatnonzero(cache.stream("voice").lengths > 20)
    rows = RunFolder(tmp_path).read_rows("splits.csv")
    for one in results["folds"]:
        for part, key in OVER_LIMITS.items():
            theirs = [index for index in long if rows[index][f"fold {one['fold']}"] == part]
            assert one[key] == [cache.ids[index] for index in theirs]
            assert theirs

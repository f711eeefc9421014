from pathlib import Path

from benchmarks.kill_runs import survive


def test_kills_at_random_moments_lose_nothing_that_was_committed(tmp_path: Path) -> None:
    tally = survive(tmp_path, kills=5, seed=1, utterances=24)
    assert tally.total == 5

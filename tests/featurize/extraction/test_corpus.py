from pathlib import Path
from typing import Any

from featurize.extraction.corpus import featurize_corpus
from tests.support.voices import Silent, contents, job_over, write_voices

AUDIO: dict[str, Any] = {"encoders": ("wav2vec2-tiny",), "audio_only": True, "mel": False, "codes": False}


def test_a_corpus_is_featurized_here_and_then_nothing_is_left_to_do(tmp_path: Path) -> None:
    job, progress = job_over(write_voices(tmp_path / "corpus", "ab"), tmp_path / "a.h5", **AUDIO), Silent()
    report = featurize_corpus(job, progress=progress)
    assert (report.cache, report.streams, report.empty) == (job.cache, ["wav2vec2-tiny"], [])
    assert progress.started["wav2vec2-tiny"] == 2
    again = Silent()
    featurize_corpus(job, progress=again)
    assert "wav2vec2-tiny" not in again.started


def test_shares_give_the_features_of_one_file(tmp_path: Path) -> None:
    manifest = write_voices(tmp_path / "corpus", "ghijkl")
    featurize_corpus(job_over(manifest, tmp_path / "a.h5", **AUDIO))
    report = featurize_corpus(job_over(manifest, tmp_path / "b.h5", **AUDIO), shards=2)
    assert report.cache == tmp_path / "b-[0-9]-of-2.h5"
    shares = [contents(path) for path in sorted(tmp_path.glob("b-*.h5"))]
    assert {key: rows for share in shares for key, rows in share.items()} == contents(tmp_path / "a.h5")

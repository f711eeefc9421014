from pathlib import Path

import pytest
import torch

from featurize.extraction.job import ExtractionJob, job_of, ready_job
from featurize.extraction.run import shard_job
from tests.support.voices import job_over, write_voices

CPU = torch.device("cpu")


def job(corpus: str, root: str | None = None, cache: str | None = None) -> ExtractionJob:
    return job_of(corpus, root=Path(root) if root else None, cache=Path(cache) if cache else None, device=CPU)


def test_a_cache_is_named_after_the_corpus_or_the_manifest() -> None:
    assert job("meld", "MELD.Raw").cache == Path("cache/meld.h5")
    assert job("manifest", "mine/voices.csv").cache == Path("cache/voices.h5")
    assert job("manifest", "mine/voices.csv", "b.h5").cache == Path("b.h5")


def test_the_built_in_corpus_is_generated_next_to_its_cache() -> None:
    assert job("demo").root == Path("cache/demo")
    assert job("demo", cache="there/a.h5").root == Path("there/demo")
    assert job("demo", "here").root == Path("here")


def test_options_reach_the_job_and_its_encoders() -> None:
    built = job_of("demo", encoders=["wav2vec2-tiny"], device=CPU, audio_only=True, limit=3, codes=False, max_seconds=9)
    assert (built.encoders, built.audio_only, built.limit) == (("wav2vec2-tiny",), True, 3)
    assert (built.options.codes, built.options.max_seconds, built.options.device) == (False, 9, CPU)


def test_a_pattern_is_no_file_to_write() -> None:
    with pytest.raises(ValueError, match=r"cache must be one file to write, got the pattern cache/voices-\*\.h5"):
        job("demo", cache="cache/voices-*.h5")


def test_the_job_of_a_share_has_its_utterances_and_its_file(tmp_path: Path) -> None:
    whole = job_over(
        write_voices(tmp_path / "corpus", "ghijkl"), tmp_path / "a.h5", encoders=("wav2vec2-tiny",), audio_only=True
    )
    shares = [shard_job(whole, number, 2) for number in (1, 2)]
    assert [share.cache.name for share in shares] == ["a-1-of-2.h5", "a-2-of-2.h5"]
    ids = [utterance.id for share in shares for utterance in ready_job(share).inputs.utterances]
    assert sorted(ids) == list("ghijkl")
    with pytest.raises(ValueError, match="numbered 1 to 2, got 3"):
        shard_job(whole, 3, 2)

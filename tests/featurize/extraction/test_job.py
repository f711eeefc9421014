from pathlib import Path

import pytest
import torch

from cache.audit import summarize
from cache.doctor import examine
from cache.errors import MmerError
from cache.store import FeatureCache
from featurize.extraction.job import ExtractionJob, job_of
from featurize.extraction.planned_job import AUDIO_ONLY_NOTE, read_job, ready_job
from featurize.extraction.run import run_job, shard_job
from tests.support.meld_release import write_tables
from tests.support.voices import Silent, job_over, write_voices

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


def test_tables_of_meld_without_clips_are_a_cache_of_text_without_failures(tmp_path: Path) -> None:
    write_tables(tmp_path / "MELD")
    options = {"root": tmp_path / "MELD", "cache": tmp_path / "meld.h5", "device": CPU}
    report = run_job(job_of("meld", encoders=["roberta-tiny"], **options), Silent())  # type: ignore[arg-type]
    cache = FeatureCache(report.cache)
    assert report.empty == []
    assert "meld has no recording: only its texts are encoded" in report.notes
    assert summarize(cache)["failures"] == []
    assert list(cache.streams) == ["ctc.chars", "roberta-tiny", "roberta-tiny.tokens"]
    coverage = [finding for finding in examine(cache) if finding.what.startswith("committed")]
    assert [(finding.found, finding.expected) for finding in coverage] == [(9, 9)] * 3
    assert [request.name for request in read_job(job_of("meld", **options))[1].requests] == ["roberta-base"]  # type: ignore[arg-type]
    with pytest.raises(MmerError, match="mfcc39 reads recordings, and meld names none; remove --encoder mfcc39"):
        read_job(job_of("meld", encoders=["mfcc39"], **options))  # type: ignore[arg-type]
    with pytest.raises(MmerError, match="--audio-only needs recordings, and meld names none; remove the option"):
        read_job(job_of("meld", audio_only=True, **options))  # type: ignore[arg-type]


def test_encoders_of_speech_alone_mean_speech_alone(tmp_path: Path) -> None:
    (tmp_path / "voices.csv").write_text("id,audio,text\nu1,u1.wav,hello\n")
    wanted = job_of("manifest", root=tmp_path / "voices.csv", encoders=["mfcc39"], device=CPU)
    reading, encoder_set = read_job(wanted)
    assert ([request.name for request in encoder_set.requests], encoder_set.characters) == (["mfcc39"], False)
    assert AUDIO_ONLY_NOTE in reading.notes
    both = read_job(job_of("manifest", root=tmp_path / "voices.csv", encoders=["mfcc39", "roberta-tiny"], device=CPU))
    assert (both[1].characters, AUDIO_ONLY_NOTE in both[0].notes) == (True, False)

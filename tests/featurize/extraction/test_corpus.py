from pathlib import Path

from cache.store import FeatureCache
from featurize.extraction.corpus import featurize_corpus
from featurize.runtime.cluster import Workers
from tests.support.voices import Silent, job_over, write_voices

AUDIO = {"encoders": ("wav2vec2-tiny",), "audio_only": True, "mel": False, "codes": False}


def test_a_corpus_is_featurized_here_and_then_nothing_is_left_to_do(tmp_path: Path) -> None:
    job, progress = job_over(write_voices(tmp_path / "corpus", "ab"), tmp_path / "a.h5", **AUDIO), Silent()
    report = featurize_corpus(job)
    assert (report.cache, report.streams, report.empty) == (job.cache, ["wav2vec2-tiny"], [])
    featurize_corpus(job, progress=progress)
    assert progress.advanced == 0 or "wav2vec2-tiny" not in progress.started


def test_shares_and_workers_give_the_features_of_one_process(tmp_path: Path) -> None:
    manifest = write_voices(tmp_path / "corpus", "ghij")
    featurize_corpus(job_over(manifest, tmp_path / "a.h5", **AUDIO))
    report = featurize_corpus(
        job_over(manifest, tmp_path / "b.h5", **AUDIO), workers=Workers(count=1, device="cpu"), shards=2
    )
    assert report.cache.name == "b-[0-9]-of-2.h5"
    whole = FeatureCache(tmp_path / "a.h5")
    for path in sorted(tmp_path.glob("b-*.h5")):
        share = FeatureCache(path)
        for index, name in enumerate(share.ids):
            found, expected = (cache.stream("wav2vec2-tiny") for cache in (share, whole))
            assert (found.read(index) == expected.read(whole.ids.index(name))).all()

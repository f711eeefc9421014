"""Corpora in their true formats, from the folder to a verified cache."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import soundfile
import torch

from cache.audit import summarize, verify, verify_recordings
from cache.doctor import examine
from cache.store import FeatureCache
from featurize.corpora.iemocap import read_iemocap
from featurize.encoders.options import EncodingOptions
from featurize.extraction.job import ExtractionJob
from featurize.extraction.run import run_job
from featurize.extraction.staleness import current_audio_digests
from tests.support.voices import RATE_HZ, Silent, tone

TINY = ("wav2vec2-tiny", "roberta-tiny")
QUICK = ("mfcc39", "roberta-tiny")  # for a test of 1,440 recordings, not of features


def featurized(corpus: str, root: Path, path: Path, encoders: Sequence[str] = TINY) -> FeatureCache:
    options = EncodingOptions(device=torch.device("cpu"))
    job = ExtractionJob(corpus=corpus, root=root, cache=path, encoders=tuple(encoders), options=options, mel=False)
    run_job(job, Silent())
    cache = FeatureCache(path)
    assert verify(cache) == []
    assert verify_recordings(cache, current_audio_digests(root)) == []
    return cache


def test_iemocap_with_its_oddities_becomes_a_cache(iemocap_root: Path) -> None:
    for index, utterance in enumerate(read_iemocap(iemocap_root).utterances):
        recording = iemocap_root / utterance.audio
        recording.parent.mkdir(parents=True, exist_ok=True)
        if utterance.id != "Ses05M_script01_1b_F000":
            soundfile.write(recording, tone(0.3 + 0.1 * index), RATE_HZ)
    cache = featurized("iemocap", iemocap_root, iemocap_root / "iemocap.h5")
    assert [(failure["id"], failure["reason"].partition(":")[0]) for failure in summarize(cache)["failures"]] == [
        ("Ses05M_script01_1b_F000", "missing")
    ] * 2  # frames and codes
    index = cache.ids.index("Ses01F_impro01_F000")
    assert cache.utterances[index].text == "Excuse me. [LAUGHTER]"
    tokens, text = cache.stream("roberta-tiny.tokens").read(index), cache.utterances[index].text
    assert [text[start:end] for _, start, end in tokens[1:-1]][-1] == "."  # the event tag is not among them
    assert next(finding for finding in examine(cache) if finding.what == "turns").differs


@pytest.mark.slow
def test_the_whole_real_ravdess_becomes_a_cache(ravdess_root: Path, tmp_path: Path) -> None:
    cache = featurized("ravdess", ravdess_root, tmp_path / "ravdess.h5", QUICK)
    assert {stream["committed"] for stream in summarize(cache)["streams"].values()} == {1440}
    assert summarize(cache)["failures"] == []
    findings = examine(cache)
    assert [finding.what for finding in findings if finding.differs] == []
    (twins,) = [finding for finding in findings if finding.what == "groups of identical recordings"]
    assert twins.found == 1
    assert all(name.endswith("-07") for name in twins.detail.split(" = "))

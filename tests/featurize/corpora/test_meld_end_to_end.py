"""A small MELD in its true format, from the folder to a verified cache."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cache.audit import summarize, verify, verify_recordings
from cache.doctor import examine
from cache.store import FeatureCache
from featurize.encoders.options import EncodingOptions
from featurize.extraction.job import ExtractionJob
from featurize.extraction.report import ExtractionReport
from featurize.extraction.run import run_job
from featurize.extraction.staleness import current_audio_digests
from featurize.inputs.audio import resampled_length
from tests.support.meld_release import FOLDERS, write_release
from tests.support.sounds import written
from tests.support.voices import Silent, tone

CORRUPT = "known defect of the release: the mp4 file is corrupt (declare-lab/MELD issue 39)"
ABSENT = "known defect of the release: the clip was never released (declare-lab/MELD issues 22 and 27)"
LONG = "known defect of the release: 305 s of the episode for one line (declare-lab/MELD issue 20)"


def featurized(root: Path, path: Path, **options: Any) -> ExtractionReport:
    encoding = EncodingOptions(device=torch.device("cpu"), **options)
    encoders = ("wav2vec2-tiny", "roberta-tiny")
    return run_job(ExtractionJob(corpus="meld", root=root, cache=path, encoders=encoders, options=encoding), Silent())


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("meld") / "MELD.Raw")


@pytest.fixture(scope="module")
def report(root: Path) -> ExtractionReport:
    return featurized(root, root.parent / "meld.h5", max_seconds=100.0, chunk=True)


@pytest.fixture(scope="module")
def cache(report: ExtractionReport) -> FeatureCache:
    return FeatureCache(report.cache)


def test_the_cache_is_whole_and_of_these_recordings(cache: FeatureCache, root: Path) -> None:
    assert verify(cache) == []
    assert verify_recordings(cache, current_audio_digests(root)) == []
    assert len(cache) == 9


def test_broken_clips_are_in_the_ledger_with_what_is_known_of_them(cache: FeatureCache) -> None:
    reasons = {
        failure["id"]: failure["reason"]
        for failure in summarize(cache)["failures"]
        if failure["stream"] == "wav2vec2-tiny"
    }
    truncated = reasons.pop("train_dia125_utt3")
    assert truncated.startswith("truncated: 2000 of ")
    assert truncated.endswith(f"bytes; {CORRUPT}")
    gone = reasons.pop("train_dia0_utt1")
    assert gone.startswith("missing: not found (tried ")
    assert gone.endswith("train_splits/dia0_utt1.mp4)")
    assert reasons == {
        "dev_dia110_utt7": f"missing: not found; {ABSENT}",
        "test_dia38_utt4": f"61.1 s; {LONG}",  # although chunks of 100 s were asked for
    }


def test_every_transcript_is_encoded_whatever_its_clip(cache: FeatureCache) -> None:
    assert summarize(cache)["streams"]["roberta-tiny"]["committed"] == 9
    assert cache.utterances[0].text == "also I was the point person on my company\u2019s transition"
    assert [utterance.split for utterance in cache.utterances] == ["train"] * 4 + ["dev"] * 2 + ["test"] * 3
    assert [utterance.turn for utterance in cache.utterances[:3]] == [0, 1, 2]


def test_stereo_and_surround_at_48_khz_have_the_frames_of_their_length(cache: FeatureCache) -> None:
    for name, seconds in {"train_dia0_utt0": 0.4, "train_dia0_utt4": 0.45, "test_dia220_utt0": 0.7}.items():
        index = cache.ids.index(name)
        blocks = -(-int(seconds * 48_000) // 1024)  # AAC comes in blocks of 1,024
        assert cache.utterances[index].duration_s == pytest.approx(blocks * 1024 / 48_000)
        mel_frames = resampled_length(blocks * 1024, 48_000) // 160 + 1
        assert len(cache.stream("logmel80").read(index)) == mel_frames


def test_what_is_odd_about_the_folder_is_noted(report: ExtractionReport) -> None:
    assert [note for note in report.notes if note.startswith("skipped")] == [
        "skipped 1 clips that are another cut of a test clip "
        f"(first: {FOLDERS['test']}/final_videos_testdia0_utt0.mp4)",
        f"skipped 1 clips without a row in the tables (first: {FOLDERS['dev']}/dia66_utt9.mp4)",
    ]


def test_the_doctor_names_the_broken_clips_and_does_not_expect_them(cache: FeatureCache) -> None:
    found = {finding.what: finding for finding in examine(cache)}
    assert found["known broken clips without features"].found == 3
    assert (found["committed in logmel80"].found, found["committed in logmel80"].expected) == (5, 6)
    assert found["train, utterances"].differs


def test_clips_converted_to_wav_are_taken_and_a_repaired_one_with_them(root: Path, tmp_path: Path) -> None:
    write_release(tmp_path)
    (tmp_path / "test_audio").mkdir()
    for name, seconds in {"dia0_utt0": 0.5, "dia38_utt4": 3.0}.items():
        written(tmp_path / "test_audio" / f"{name}.wav", tone(seconds)[:, None])
    cache = FeatureCache(featurized(tmp_path, tmp_path / "meld.h5").cache)
    durations = {utterance.id: utterance.duration_s for utterance in cache.utterances}
    assert (durations["test_dia0_utt0"], durations["test_dia38_utt4"]) == (0.5, 3.0)
    assert "test_dia38_utt4" not in {failure["id"] for failure in summarize(cache)["failures"]}

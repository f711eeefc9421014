from collections.abc import Sequence
from pathlib import Path

import pytest
import soundfile

from cache.utterance import Utterance
from featurize.corpora.base import CorpusReading
from featurize.encoders.base import WaveformEncoder
from featurize.encoders.options import EncodingOptions
from featurize.encoders.tiny import build_vit_mel_tiny, build_wav2vec2_tiny
from featurize.extraction.job import EncoderSet, ExtractionJob
from featurize.extraction.parity import TOLERANCE, check_parity
from featurize.extraction.plan import plan_encoder, read_inputs
from featurize.extraction.planned_job import PlannedJob
from featurize.extraction.prepare import CorpusHeader
from tests.support.images import mel_encoder
from tests.support.models import CPU, speech_encoder, waveforms


def ready_for(
    folder: Path, lengths: Sequence[int], *, max_seconds: float = 60.0, encoder: WaveformEncoder | None = None
) -> PlannedJob:
    """Plans an encoder, wav2vec2-tiny if none is given, over recordings of the given lengths."""
    for index, wave in enumerate(waveforms(lengths)):
        soundfile.write(folder / f"{index}.wav", wave, 16_000, subtype="FLOAT")
    utterances = [Utterance(id=str(index), audio=f"{index}.wav") for index in range(len(lengths))]
    inputs = read_inputs(CorpusReading(root=folder, utterances=utterances))
    encoder = encoder or speech_encoder(build_wav2vec2_tiny().wav2vec2)
    job = ExtractionJob(corpus="manifest", root=folder, cache=folder / "a.h5", options=EncodingOptions(device=CPU))
    encoder_set = EncoderSet(requests=[], options=job.options, mel=False, characters=False)
    plans = [plan_encoder(encoder, inputs, max_seconds=max_seconds, chunk=False)]
    return PlannedJob(
        job=job, corpus=CorpusHeader(name="a", root=folder), encoder_set=encoder_set, inputs=inputs, plans=plans
    )


def test_the_parity_check_gives_the_figure_of_the_worst_utterance(tmp_path: Path) -> None:
    (found,) = check_parity(ready_for(tmp_path, [16_000, 900, 5000, 30_000, 100]), 3)
    assert (found.encoder, found.precision, found.utterances) == ("a", "float32", 3)
    assert 0 < found.relative <= TOLERANCE
    assert 0 < found.absolute < 1e-4
    assert found.exact


def test_the_parity_check_notices_an_encoder_that_is_not_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned_job = ready_for(tmp_path, [16_000, 900, 5000])
    monkeypatch.setattr("featurize.encoders.speech.valid_mask", lambda *_: None)
    (found,) = check_parity(planned_job, 3)
    assert found.relative > 0.001
    assert not found.exact


def test_the_parity_check_covers_vit_on_mel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned_job = ready_for(tmp_path, [16_000, 900, 5000, 250_000], encoder=mel_encoder(build_vit_mel_tiny()))
    (found,) = check_parity(planned_job, 4)
    assert (found.encoder, found.utterances) == ("a", 4)
    assert 0 < found.relative <= TOLERANCE
    monkeypatch.setattr("featurize.encoders.vit_mel.valid_mask", lambda *_: None)
    assert not check_parity(planned_job, 4)[0].exact


def test_the_parity_check_of_nothing_that_can_be_encoded_tried_no_utterance(tmp_path: Path) -> None:
    (found,) = check_parity(ready_for(tmp_path, [16_000, 9000], max_seconds=0.1), 3)
    assert found.utterances == 0

"""Transcripts by ASR for recordings without a text, and runs that were trained on such transcripts."""

from pathlib import Path

import pytest
import torch

from featurize.asr.transcriber import Transcriber
from fusion.end_to_end.prediction.predictor import load_predictor
from fusion.end_to_end.prediction.recordings import Recording, load_waveform
from fusion.run.folder import RunFolder
from tests.support.predicted import TOLERANCE, run_of, stored, utterances, wanted
from tests.support.recognizers import write_ctc_model
from tests.support.tuned import ONE_FOLD
from tests.support.voices import featurized

LETTERS = "letters"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ctc_model(tmp_path_factory.mktemp("asr") / LETTERS)


def test_a_recording_without_a_text_is_predicted_with_its_transcript(
    spoken: Path, concat: RunFolder, model: Path
) -> None:
    predictor = load_predictor(concat.path, device="cpu", asr=str(model))
    path = spoken.parent / utterances(spoken)[0].audio
    span = Recording(file="", source=path).measured()
    assert not isinstance(span, str)
    found = predictor.predict(path)
    assert [found.text] == Transcriber(str(model), torch.device("cpu"))([load_waveform(span)])
    with_text = load_predictor(concat.path, device="cpu").predict(path, text=found.text)
    assert found.probabilities == pytest.approx(with_text.probabilities, abs=1e-6)
    assert predictor.predict(path, text="i hate this").text == "i hate this"


def test_a_run_on_transcripts_predicts_recordings_as_it_scored_them(spoken: Path, model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "asr.h5"
    featurized(spoken.parent / "corpus.csv", cache, encoders=("roberta-tiny",), mel=False, asr=str(model), asr_all=True)
    run = run_of(cache, tmp_path / "run", wanted("text", {"text": "roberta-tiny+asr"}, own_folds=ONE_FOLD))
    (fold,) = run.identity["folds"]
    expected = stored(run, fold)
    name = next(iter(expected))
    predictor = load_predictor(run.path, device="cpu", fold=fold, asr=str(model))
    (utterance,) = [utterance for utterance in utterances(cache) if utterance.id == name]
    found = predictor.predict(spoken.parent / utterance.audio)
    assert list(found.probabilities.values()) == pytest.approx(expected[name].tolist(), abs=TOLERANCE)

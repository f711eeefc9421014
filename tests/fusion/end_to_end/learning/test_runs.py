"""Runs with encoders that learn: folders, resumed runs, loaded models, and streams of what was learned."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from cache.errors import MmerError
from cache.joined import open_cache
from featurize.encoders.tiny import build_wav2vec2_tiny
from fusion.end_to_end.label_encoder import LabelEncoders
from fusion.end_to_end.learning.model import TunedModel
from fusion.evaluation.classes import CLASSIFICATION
from fusion.experiment.plan import build_model
from fusion.experiment.request import ExperimentRequest
from fusion.run.artifacts import read_probabilities
from fusion.run.folder import DamagedRun, RunFolder
from fusion.run.load import load_model
from fusion.run.train import train_run
from fusion.training.evaluate import predict_probabilities
from tests.support.checkpoints import altered, changed, saved
from tests.support.once import made_once
from tests.support.runs import reader_of
from tests.support.tuned import CPU, ONE_FOLD, planned, request, source_of
from tests.support.voices import featurized
from tests.support.workers import Here


def trained(cache: Path, out: Path, wanted: ExperimentRequest, **options: Any) -> RunFolder:
    opened = reader_of(cache)
    return RunFolder(train_run(wanted.experiment(opened), opened, out=out, **options).folder)


FAST = {"audio_lr": 1e-2, "text_lr": 1e-2}
TWO_FOLDS = {"session": ("0", "1")}  # of three
WANTED = {
    "rescmfa": replace(request("rescmfa", "audio", "text=2", epochs=1, audio_lr=1e-3), only=TWO_FOLDS),
    "lora": replace(request("concat", "audio=lora:2", "text=lora:4", epochs=1, **FAST), own_folds=ONE_FOLD),
    "jfm": replace(request("jfm", "text=2", epochs=1, text_lr=1e-3), own_folds=ONE_FOLD),
}


@pytest.fixture(scope="module", params=WANTED)
def run(
    request: pytest.FixtureRequest, learning: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, RunFolder]:
    name = str(request.param)
    made = made_once(
        tmp_path_factory, f"learned-{name}", lambda folder: trained(learning, folder / "run", WANTED[name])
    )
    return name, RunFolder(made / "run")


def test_a_loaded_model_predicts_what_the_run_stored(learning: Path, run: tuple[str, RunFolder]) -> None:
    name, folder = run
    plan = planned(learning, WANTED[name])
    for fold in plan.split.folds:
        model = load_model(folder, fold.name, 0)
        found = predict_probabilities(model, source_of(plan), fold.test)
        stored = read_probabilities(folder.model(fold.name, 0), plan.inputs.classes, CLASSIFICATION)
        expected = np.stack([stored[plan.cache.ids[index]] for index in fold.test])
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_encoders_are_saved_with_what_they_were_trained_on(learning: Path, run: tuple[str, RunFolder]) -> None:
    name, folder = run
    plan = planned(learning, WANTED[name])
    for fold in plan.split.folds:
        speakers = {plan.cache.utterances[index].speaker for index in (*fold.train, *fold.dev)}
        assert not speakers & {plan.cache.utterances[index].speaker for index in fold.test}
        for role, start in plan.starts.items():
            kept = folder.model(fold.name, 0).path / role
            record = json.loads((kept / "trained_on.json").read_text())
            assert record["fold"] == fold.name
            assert record["tuned"] == start.tune.text
            assert set(record["speakers"]) == speakers
            assert (kept.with_name(f"{role}.lora").is_dir()) == (name == "lora")
    weights = folder.model(plan.split.folds[0].name, 0).path / "weights.safetensors"
    assert not any(weight.startswith("encoders") for weight in load_file(weights))


def test_a_finished_run_is_not_trained_again(
    learning: Path, run: tuple[str, RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, folder = run
    monkeypatch.setattr("fusion.run.cross_validation.train_fold", None)
    before = (folder.path / "results.json").read_bytes()
    trained(learning, folder.path, WANTED[name])
    assert (folder.path / "results.json").read_bytes() == before


def test_a_refit_tunes_encoders_twice_and_equally_on_workers(learning: Path, tmp_path: Path) -> None:
    wanted = replace(request("audio", "audio=1", epochs=1, audio_lr=1e-3, refit=True), only=TWO_FOLDS)
    here, there = tmp_path / "here", tmp_path / "there"
    trained(learning, here, wanted)
    trained(learning, there, wanted, cluster=Here())
    weights = sorted(path.relative_to(here) for path in here.rglob("*.safetensors"))
    assert len(weights) == 2 * len(RunFolder(here).identity["folds"])  # of the head and of the encoder
    assert all((here / path).read_bytes() == (there / path).read_bytes() for path in weights)
    plan = planned(learning, wanted)
    fold = plan.split.folds[0]
    record = json.loads((RunFolder(here).model(fold.name, 0).path / "audio" / "trained_on.json").read_text())
    test = {plan.cache.utterances[index].speaker for index in fold.test}
    taking_part = {one.speaker for one in plan.cache.utterances if one.session in TWO_FOLDS["session"]}
    assert set(record["speakers"]) == taking_part - test
    model = load_model(RunFolder(here), fold.name, 0)
    found = predict_probabilities(model, source_of(plan), fold.test)
    stored = read_probabilities(RunFolder(here).model(fold.name, 0), plan.inputs.classes, CLASSIFICATION)
    expected = np.stack([stored[plan.cache.ids[index]] for index in fold.test])
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_changed_encoder_is_noticed(learning: Path, tmp_path: Path) -> None:
    wanted = replace(request("audio", "audio=1", epochs=1), own_folds=ONE_FOLD)
    folder = trained(learning, tmp_path / "run", wanted)
    fold = next(iter(folder.identity["folds"]))
    path = folder.model(fold, 0).path / "audio" / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-4] + b"abcd")
    with pytest.raises(DamagedRun, match="is not the encoder that was written"):
        load_model(folder, fold, 0)
    trained(learning, folder.path, wanted)  # notices the damage, and trains this model again
    assert path.read_bytes() == content


def test_a_stream_of_a_tuned_encoder_is_what_the_head_read(learning: Path, tmp_path: Path) -> None:
    """Featurizing with the saved encoder gives the rows that the tuned model computes."""
    wanted = replace(request("audio", "audio", audio_lr=1e-3, epochs=1), own_folds=ONE_FOLD)
    folder = trained(learning, tmp_path / "run", wanted)
    plan = planned(learning, wanted)
    fold = plan.split.folds[0]
    checkpoint = folder.model(fold.name, 0).path / "audio"
    featurized(
        learning.parent / "corpus.csv",
        tmp_path / "tuned.h5",
        encoders=(f"tuned={checkpoint}",),
        dtype="float32",
        audio_only=True,
        mel=False,
    )
    stream = open_cache(tmp_path / "tuned.h5").stream("tuned")
    assert stream.spec.trained_on["fold"] == fold.name
    model: Any = load_model(folder, fold.name, 0)
    batch = source_of(plan).batch(fold.test, ["audio"])
    with torch.no_grad():
        encoded, _ = model.encoders["audio"](batch.features["audio"], batch.masks["audio"])
    for row, index in zip(encoded, fold.test.tolist(), strict=True):
        stored = stream.read(index)
        np.testing.assert_allclose(row[: len(stored)].numpy(), stored, atol=1e-5)


def test_waveforms_give_what_their_features_give(learning: Path) -> None:
    """From the recordings and from the features of their convolutions, the model starts with the same logits."""
    from_wave, from_conv = (planned(learning, request("audio", tune)) for tune in ("audio=wave", "audio"))
    fold = from_wave.split.folds[0]
    everything = np.arange(len(from_wave.cache))
    waves = from_wave.features(from_wave.every_stream, device=CPU, chosen=everything, resident_share=0.5)
    found = predict_probabilities(build_model(from_wave, seed=0), waves, fold.test)
    expected = predict_probabilities(build_model(from_conv, seed=0), source_of(from_conv), fold.test)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (waves.lengths(everything, ["audio"]) == source_of(from_conv).lengths(everything, ["audio"])).all()


def test_training_from_waveforms_moves_the_convolutions(learning: Path, tmp_path: Path) -> None:
    wanted = replace(request("concat", "audio=wave", audio_lr=1e-3, epochs=1), own_folds=ONE_FOLD)
    folder = trained(learning, tmp_path / "run", wanted)
    fold = next(iter(folder.identity["folds"]))
    tuned = load_file(folder.model(fold, 0).path / "audio" / "model.safetensors")
    start = build_wav2vec2_tiny().state_dict()
    changed_names = [name for name, value in tuned.items() if not torch.equal(value, start[name])]
    assert any("feature_extractor" in name for name in changed_names)
    assert isinstance(load_model(folder, fold, 0), TunedModel)


def test_a_recording_that_changed_is_refused(learning: Path, tmp_path: Path) -> None:
    wanted = request("audio", "audio=wave", epochs=1)
    for source in learning.parent.glob("*.wav"):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    soundfile.write(tmp_path / "v03.wav", np.zeros(4000, np.float32), 16_000)
    with pytest.raises(MmerError, match=r"v03.wav is not the one that .* was computed from; pass --root"):
        trained(learning, tmp_path / "run", replace(wanted, root=tmp_path))
    (tmp_path / "v03.wav").unlink()
    with pytest.raises(MmerError, match=r"recording .*v03.wav: missing: not found .*; pass --root with the corpus"):
        trained(learning, tmp_path / "run2", replace(wanted, root=tmp_path))


BAD: list[tuple[str, tuple[str, ...], dict[str, object], str]] = [
    ("audio", ("text",), {}, "--tune text: head audio does not read text; it reads audio"),
    ("audio", ("audio=9",), {}, "--tune audio=9: wav2vec2-tiny has 4 layers; choose 1 to 4, or all"),
    ("audio", ("audio=0",), {}, "--tune audio must be all, a number of top layers such as 3"),
    ("audio", ("audio=2",), {}, r"learns from wav2vec2-tiny@2, which .* lacks; add it with mmer-featurize manifest"),
    ("audio", ("audio", "audio=2"), {}, "--tune audio is given twice"),
    ("concat", ("chars",), {}, "the role must be one of audio, text, patches, got 'chars'"),
    ("concat", ("text=wave",), {}, "only the encoder of audio has convolutions"),
    ("audio", (), {"audio_lr": 0.1}, "audio_lr: only tuned encoders have this; name one with --tune ROLE"),
    ("audio", ("audio",), {"audio_lr": -1}, "audio_lr must not be negative, got -1"),
    ("audio", ("audio",), {"layer_decay": 0}, r"layer_decay must lie in \(0, 1\], got 0"),
    ("audio", ("audio",), {"accumulate": 0}, "accumulate must be at least 1, got 0"),
]


@pytest.mark.parametrize(("fusion", "tune", "fields", "message"), BAD, ids=lambda value: str(value)[:40])
def test_bad_input_is_one_line(
    learning: Path, fusion: str, tune: tuple[str, ...], fields: dict[str, object], message: str
) -> None:
    with pytest.raises(MmerError, match=message):
        planned(learning, request(fusion, *tune, **fields))


def test_int8_is_refused(learning: Path, tmp_path: Path) -> None:
    small: dict[str, Any] = {"encoders": ("wav2vec2-tiny@conv",), "dtype": "int8", "audio_only": True, "mel": False}
    featurized(learning.parent / "corpus.csv", tmp_path / "small.h5", **small)
    with pytest.raises(MmerError, match="stored as int8, whose rounding is too coarse to learn from"):
        planned(tmp_path / "small.h5", ExperimentRequest(fusion="audio", tune=("audio",)))


def test_an_encoder_of_a_folder_is_named_and_checked(learning: Path, tmp_path: Path) -> None:
    own = saved(tmp_path / "own")
    cache = tmp_path / "own.h5"
    kind: dict[str, Any] = {"dtype": "float32", "audio_only": True, "mel": False}
    featurized(learning.parent / "corpus.csv", cache, encoders=(f"mine={own}@conv",), **kind)
    asked = ExperimentRequest(fusion="audio", tune=("audio",), fields={"epochs": 1})
    with pytest.raises(MmerError, match="came from a folder named own; pass --encoder mine=FOLDER"):
        planned(cache, asked)
    assert build_model(planned(cache, replace(asked, encoders={"mine": own})), seed=0)
    other = altered(own, tmp_path / "other", changed("encoder.layers.0"))
    with pytest.raises(MmerError, match="is not the encoder that computed stream mine@conv"):
        build_model(planned(cache, replace(asked, encoders={"mine": other})), seed=0)
    with pytest.raises(MmerError, match="missing is not a folder; pass --encoder mine=FOLDER"):
        planned(cache, replace(asked, encoders={"mine": tmp_path / "missing"}))


def test_a_final_model_keeps_its_tuned_encoder_and_is_loaded_with_it(learning: Path, tmp_path: Path) -> None:
    wanted = replace(request("text", "text=2", text_lr=1e-3, epochs=1), own_folds=ONE_FOLD)
    folder = trained(learning, tmp_path / "run", wanted, final=True)
    model = folder.model("final", 0)
    record = json.loads((model.path / "text" / "trained_on.json").read_text())
    opened = open_cache(learning)
    assert (record["fold"], set(record["speakers"])) == ("final", {turn.speaker for turn in opened.utterances})
    head = load_model(folder, "final", 0)
    assert isinstance(head, TunedModel)
    plan = planned(learning, wanted)
    found = predict_probabilities(head, source_of(plan), np.arange(len(opened)))
    fold = predict_probabilities(
        load_model(folder, plan.split.folds[0].name, 0), source_of(plan), np.arange(len(opened))
    )
    assert np.isfinite(found).all()
    assert not np.allclose(found, fold)
    encoder = model.path / "text" / "model.safetensors"
    encoder.write_bytes(encoder.read_bytes()[:-1] + b"x")
    with pytest.raises(DamagedRun, match="final-seed0 is damaged"):
        load_model(folder, "final", 0)


def test_the_words_of_a_class_pass_the_encoder_before_it_learns(learning: Path) -> None:
    wanted = replace(
        request("label-guided", "text=2", min_count=1, words=2, frames=4, text_lr=1e-3), label_encoders=LabelEncoders()
    )
    frozen = replace(wanted, tune=(), fields={**wanted.fields, "text_lr": 1e-5})
    encoders = [planned(learning, one).experiment.label_encoder for one in (wanted, frozen)]
    assert encoders[0] == encoders[1]
    assert encoders[0] is not None
    assert set(encoders[0].identity) == {"weights", "tokenizer", "layers"}

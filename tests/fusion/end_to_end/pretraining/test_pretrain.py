"""Pre-training as one call: folders that featurize, closed test subsets, and folds that refuse what they must."""

import json
import shlex
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from cache.errors import MmerError
from cache.joined import open_cache
from cache.rows import StoredRows, rows_checksum
from cli.extract import featurize
from featurize.encoders.huggingface import load_speech, open_checkpoint, weights_digest
from fusion.end_to_end.pretraining.pretrain import PretrainedRun
from fusion.experiment.request import ExperimentRequest
from fusion.protocols.split import split_cache
from fusion.run.train import train_run
from tests.support.pretraining import Watcher, featurize_sessions, pretrained

CONV = "wav2vec2-tiny@conv"


@pytest.fixture(scope="module")
def cache(tones: Path) -> Path:
    return tones


@pytest.fixture(scope="module")
def run(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> PretrainedRun:
    return pretrained(cache, tmp_path_factory.mktemp("runs") / "all", folds=())


@pytest.fixture
def copy(cache: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(cache, tmp_path / "a.h5"))


def weights(run: PretrainedRun, fold: int = 0) -> dict[str, torch.Tensor]:
    held = load_file(run.folds[fold].encoder / "model.safetensors")
    return {name: tensor.clone() for name, tensor in held.items()}  # the file stays mapped otherwise


def scramble(path: Path, indices: list[int]) -> None:
    """Writes noise in place of the convolutional features of some utterances."""
    stream, random = open_cache(path).stream(CONV), np.random.default_rng(5)
    with h5py.File(path, "r+") as file:
        for index in indices:
            start, end = (int(offset) for offset in stream.offsets[index : index + 2])
            values = file[f"streams/{CONV}/values"]
            values[start:end] = random.standard_normal((end - start, *stream.spec.shape))
            checksums = file[f"streams/{CONV}/checksum"]
            checksums[index] = rows_checksum(StoredRows(values[start:end], None))


def test_every_fold_has_an_encoder_that_has_seen_its_training_subset_only(cache: Path, run: PretrainedRun) -> None:
    opened = open_cache(cache)
    split = split_cache(opened, streams=[CONV], protocol="session")
    assert [fold.fold for fold in run.folds] == [fold.name for fold in split.folds] == ["1", "2", "3"]
    for trained, fold in zip(run.folds, split.folds, strict=True):
        record = json.loads((trained.encoder / "trained_on.json").read_text())
        assert record["speakers"] == sorted({opened.utterances[index].speaker for index in fold.train})
        assert record["dialogues"] == sorted({opened.utterances[index].dialogue for index in fold.train})
        assert (record["corpus"], record["fold"], record["protocol"]) == ("manifest", fold.name, "session")
        assert trained.train == len(fold.train)
    assert not torch.equal(*(weights(run, fold)["project_hid.weight"] for fold in (0, 1)))


def test_the_encoder_is_a_checkpoint_with_trained_transformer_and_frozen_convolutions(run: PretrainedRun) -> None:
    from featurize.encoders.tiny import build_wav2vec2_tiny

    loaded = load_speech(open_checkpoint(str(run.folds[0].encoder)))
    assert loaded.normalize
    assert loaded.pretraining is not None
    start = build_wav2vec2_tiny()
    assert weights_digest(loaded.pretraining.wav2vec2.feature_extractor) == weights_digest(  # type: ignore[arg-type,union-attr]
        start.wav2vec2.feature_extractor
    )
    for part in ("wav2vec2.encoder", "quantizer", "project_hid", "project_q"):
        assert weights_digest(loaded.pretraining.get_submodule(part)) != weights_digest(start.get_submodule(part))


def test_the_printed_command_makes_streams_codes_and_start_weights(run: PretrainedRun, copy: Path, cache: Path) -> None:
    name, *arguments = shlex.split(run.command.replace(str(cache), str(copy)))
    assert name == "mmer-featurize"
    result = CliRunner().invoke(featurize, arguments)
    assert result.exit_code == 0, result.output
    opened = open_cache(copy)
    for fold in run.folds:
        stream = opened.stream(f"pre-{fold.fold}")
        assert stream.spec.trained_on["fold"] == fold.fold
        assert (np.asarray(stream.state) == 1).all()
        assert opened.stream(f"pre-{fold.fold}.codes").rows == stream.rows
        stored = opened.weights(f"pre-{fold.fold}")
        np.testing.assert_array_equal(
            stored["project_q.weight"], load_file(fold.encoder / "model.safetensors")["project_q.weight"].numpy()
        )
    with pytest.raises(MmerError, match="fold 2: the encoder of pre-1 has seen dialogue d10, d11 of test"):
        split_cache(opened, streams=["pre-1"], protocol="session")
    notes = split_cache(opened, streams=["pre-1"], protocol="session", allow_leak=True).notes
    assert not [note for note in notes if note.startswith("fold 1: the encoder")]
    with pytest.raises(MmerError, match="fold 2: the encoder of pre-1 has seen dialogue d10, d11 of test"):
        pretrained(copy, copy.parent / "again", encoder=f"pre-1={run.folds[0].encoder}", start="wave", folds=("2",))


def test_an_earlier_training_stays_in_the_record(run: PretrainedRun, copy: Path) -> None:
    encoder = f"pre={run.folds[0].encoder}"
    watcher = Watcher()
    again = pretrained(copy, copy.parent / "again", watcher, encoder=encoder, start="wave", config={"steps": 1})
    record = json.loads((again.folds[0].encoder / "trained_on.json").read_text())
    assert record["earlier"] == json.loads((run.folds[0].encoder / "trained_on.json").read_text())
    leaking = pretrained(
        copy, copy.parent / "leak", encoder=encoder, start="wave", folds=("2",), allow_leak=True, config={"steps": 1}
    )
    assert any("has seen dialogue d10, d11 of test" in note for note in leaking.notes)


def test_noise_in_place_of_the_test_subset_changes_no_weight(run: PretrainedRun, copy: Path) -> None:
    opened = open_cache(copy)
    (fold, *_) = split_cache(opened, streams=[CONV], protocol="session").folds
    scramble(copy, fold.test.tolist())
    noisy = weights(pretrained(copy, copy.parent / "noisy"))
    expected = weights(run)
    assert all(torch.equal(noisy[name], expected[name]) for name in expected)
    scramble(copy, fold.train[:1].tolist())
    other = weights(pretrained(copy, copy.parent / "other"))
    assert not torch.equal(other["project_hid.weight"], expected["project_hid.weight"])


def test_a_finished_fold_is_not_trained_again_and_a_damaged_one_is(cache: Path, tmp_path: Path) -> None:
    first, watcher = pretrained(cache, tmp_path / "run", config={"steps": 2}), Watcher()
    again = pretrained(cache, tmp_path / "run", watcher, config={"steps": 2})
    assert watcher.started == []
    assert again.results == first.results
    expected, file = weights(first), first.folds[0].encoder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"abcd")
    pretrained(cache, tmp_path / "run", watcher, config={"steps": 2})
    assert any("has changed since it was written; the fold is trained again" in note for note in watcher.notes)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(first).items())


def test_another_pre_training_in_the_folder_is_kept_unless_replaced(cache: Path, tmp_path: Path) -> None:
    pretrained(cache, tmp_path, config={"steps": 1})
    with pytest.raises(MmerError, match=r"already holds a different pre-training \(training.lr: 0.001 there, 0.002"):
        pretrained(cache, tmp_path, config={"steps": 1, "lr": 0.002})
    pretrained(cache, tmp_path, config={"steps": 1, "lr": 0.002}, replace=True)


def test_from_waveforms_the_convolutions_learn_too(cache: Path, tmp_path: Path) -> None:
    from featurize.encoders.tiny import build_wav2vec2_tiny

    run = pretrained(cache, tmp_path, start="wave", config={"steps": 2})
    start, found = build_wav2vec2_tiny().state_dict(), weights(run)
    changed = [name for name in found if not torch.equal(found[name], start[name])]
    convolutions = [name for name in start if ".feature_extractor." in name]
    assert {*convolutions, "wav2vec2.feature_projection.layer_norm.weight"} <= {*changed}
    record = json.loads((run.folds[0].encoder / "trained_on.json").read_text())
    assert record["trained"] == "convolutions, Transformer and quantizer, pre-trained"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": ("7",)}, "protocol session has no fold 7; known: 1, 2, 3"),
        ({"protocol": "sessions"}, "unknown protocol 'sessions'"),
        ({"start": "mel"}, "--from must be one of conv, wave, got 'mel'"),
        ({"root": Path("x")}, "--root is only read with --from wave"),
        ({"config": {"mask_length": 500}}, "fold 1 has 0 training utterances of at least 500 frames of 20 ms"),
    ],
)
def test_bad_options_are_one_line(cache: Path, tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(MmerError, match=message.replace("(", r"\(")):
        pretrained(cache, tmp_path, **options)  # type: ignore[arg-type]


def test_utterances_without_room_for_a_span_are_left_out_with_a_note(cache: Path, tmp_path: Path) -> None:
    watcher = Watcher()
    run = pretrained(cache, tmp_path, watcher, config={"steps": 1, "mask_length": 18})
    (note,) = [note for note in watcher.notes if "shorter than a masked span" in note]
    assert note.startswith("fold 1: ")
    assert run.folds[0].train < 16 - 2


def test_utterances_that_are_not_in_the_label_set_take_no_part(cache: Path, tmp_path: Path) -> None:
    run = pretrained(cache, tmp_path, config={"steps": 1}, only={"dialogue": ("d00", "d10", "d11", "d20", "d21")})
    assert run.folds[0].train <= 12
    assert "only dialogue=" in " ".join(run.notes) or run.folds[0].train < 16


def test_fine_tuning_of_a_pre_trained_encoder_keeps_the_record_of_pre_training(
    run: PretrainedRun, copy: Path, tmp_path: Path
) -> None:
    encoder = run.folds[0].encoder
    root = str(open_cache(copy).header["corpus"]["root"])
    featurize_sessions(Path(root) / "corpus.csv", copy, f"pre={encoder}", f"pre={encoder}@3")
    opened = open_cache(copy)
    wanted = ExperimentRequest(
        fusion="audio",
        fields={"epochs": 1, "batch_size": 8},
        streams={"audio": "pre"},
        tune=("audio=1",),
        only={"session": ("1", "2")},
        encoders={"pre": encoder},
        allow_leak=True,
    )
    train_run(wanted.experiment(opened), opened, out=tmp_path / "tuned")
    record = json.loads((tmp_path / "tuned" / "1-seed0" / "audio" / "trained_on.json").read_text())
    assert record["tuned"] == "1"
    assert record["earlier"] == json.loads((encoder / "trained_on.json").read_text())

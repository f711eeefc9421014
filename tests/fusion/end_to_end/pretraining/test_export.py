"""The folder of a fold, and the record of the data that an encoder has seen."""

from pathlib import Path

import numpy as np
import pytest

from cache.errors import MmerError
from cache.stream import StreamSpec
from cache.utterance import Utterance
from fusion.end_to_end.pretraining.export import fold_folder, training_record
from fusion.protocols.folds import Fold
from fusion.protocols.leaks import check_encoders

SPOKEN = [Utterance(id=f"u{i}", speaker=speaker, dialogue=f"d{i // 2}") for i, speaker in enumerate("aabbcc")]
TRAIN = np.array([0, 1, 4])


def record(utterances: list[Utterance] = SPOKEN, **changes: object) -> dict[str, object]:
    fields = {"corpus": "toy", "fold": "1", "protocol": "session", "what": "everything", **changes}
    return training_record(utterances, TRAIN, **fields)  # type: ignore[arg-type]


def test_the_record_names_the_speakers_and_dialogues_of_the_training_subset() -> None:
    found = record()
    assert (found["corpus"], found["fold"], found["trained"]) == ("toy", "1", "everything")
    assert found["speakers"] == ["a", "c"]
    assert found["dialogues"] == ["d0", "d2"]
    assert "earlier" not in found


def test_an_utterance_without_a_speaker_makes_the_encoder_count_as_trained_on_all() -> None:
    found = record([*SPOKEN[:4], Utterance(id="x", dialogue="d9"), SPOKEN[5]])
    assert found["speakers"] == found["dialogues"] == []
    fold = Fold(name="1", train=TRAIN, dev=np.array([5]), test=np.array([2, 3]))
    spec = StreamSpec(name="pre", role="audio", source="x", shape=(2,), dtype="float32", trained_on=found)
    with pytest.raises(MmerError, match="the encoder of pre was trained on unknown speakers of toy"):
        check_encoders(fold, SPOKEN, [spec], "toy")


def test_an_earlier_training_counts_too() -> None:
    fold = Fold(name="1", train=TRAIN, dev=np.array([5]), test=np.array([2, 3]))
    earlier = {"corpus": "toy", "speakers": ["b"], "dialogues": []}
    for found, leaks in ((record(), False), (record(corpus="other", earlier=earlier), True)):
        spec = StreamSpec(name="pre", role="audio", source="x", shape=(2,), dtype="float32", trained_on=found)
        notes = check_encoders(fold, SPOKEN, [spec], "toy", allow_leak=True)
        assert notes == (["fold 1: the encoder of pre has seen speaker b of test"] if leaks else [])


def test_a_folder_of_another_pre_training_is_refused(tmp_path: Path) -> None:
    folder = fold_folder(tmp_path, "1/a")
    assert folder.path == tmp_path / "1%2Fa"
    folder.begin({"training": {"lr": 0.1, "seed": 0}}, {"versions": {}})
    folder.begin({"training": {"lr": 0.1, "seed": 0}}, {"versions": {"mmer": "2"}})
    with pytest.raises(MmerError, match=r"already holds a different pre-training \(training.lr: 0.1 there, 0.2 requ"):
        folder.begin({"training": {"lr": 0.2, "seed": 0}}, {})
    folder.clear()
    folder.begin({"training": {"lr": 0.2, "seed": 0}}, {})


def test_an_encoder_without_settings_is_never_overwritten(tmp_path: Path) -> None:
    folder = fold_folder(tmp_path, "1")
    folder.encoder.mkdir(parents=True)
    (folder.encoder / "mine").touch()
    with pytest.raises(MmerError, match=r"exists, but .* has no pretrain.json; choose another --out"):
        folder.begin({"training": {}}, {})
    folder.clear()
    assert (folder.encoder / "mine").exists()

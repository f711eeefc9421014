"""Run folders of strangers: one clean line for everything that is malformed, and no path leaves the folder."""

import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cache.errors import MmerError
from fusion.end_to_end.prediction.predictor import load_predictor
from fusion.run.folder import RunFolder

Record = dict[str, Any]


@pytest.fixture
def copy(concat: RunFolder, tmp_path: Path) -> Path:
    return Path(shutil.copytree(concat.path, tmp_path / "run"))


def loaded(run: Path, **options: Any) -> None:
    load_predictor(run, device="cpu", **options)


def rewritten(run: Path, change: Callable[[Record], object]) -> None:
    record = json.loads((run / "run.json").read_text())
    change(record)
    (run / "run.json").write_text(json.dumps(record))


def spec(record: Record, **fields: object) -> None:
    record["specs"]["audio"].update(fields)


CHANGES: list[tuple[Callable[[Record], object], str]] = [
    (lambda record: record.pop("decides"), "run.json was not written by mmer-train"),
    (lambda record: record.update(decides=[]), "run.json was not written by mmer-train"),
    (lambda record: record["decides"].update(seeds=["0/../../x"]), r"damaged \(folds and seeds\)"),
    (lambda record: record["decides"].update(seeds=[]), r"damaged \(folds and seeds\)"),
    (lambda record: record["decides"].update(seeds=[True]), r"damaged \(folds and seeds\)"),
    (lambda record: record["decides"].update(folds=[]), r"damaged \(folds and seeds\)"),
    (lambda record: record["decides"].update(task="ranking"), "unknown task 'ranking'; known: classification"),
    (lambda record: record["decides"].update(task=[]), "damaged"),
    (lambda record: record["decides"].update(tune=3), "damaged"),
    (
        lambda record: record["decides"].update(tune={"audio": "all/../x"}),
        "--tune audio must be all|does not fit the head|cannot be read",
    ),
    (lambda record: record["decides"].update(fusion="os:system"), "os:system"),
    (lambda record: record["decides"].update(fusion=7), "is a late fusion of other runs"),
    (lambda record: record["decides"].update(fusion="nothing"), "nothing"),
    (lambda record: record["decides"]["head"].update(dim=-1), "dim must be a width"),
    (lambda record: record["decides"]["head"].update(dim=10**9), "does not fit the head|cannot be built"),
    (lambda record: record["decides"]["head"].update(evil=1), "evil"),
    (lambda record: record["inputs"].update(shapes={"audio": [64]}), "no shape of text"),
    (lambda record: record["inputs"].update(shapes={"audio": [10**18], "text": [64]}), "run.json|does not fit"),
    (lambda record: record["inputs"].update(shapes=3), "damaged"),
    (lambda record: record.pop("specs"), "does not record its streams"),
    (lambda record: record.update(specs={"audio": {}}), "does not record its streams"),
    (lambda record: record.update(fold_specs=[]), "does not record its streams"),
    (lambda record: spec(record, name="a/b"), "does not record its streams"),
    (lambda record: spec(record, shape=[-1]), "does not record its streams"),
    (lambda record: spec(record, source="../elsewhere"), "source '../elsewhere', which is invalid"),
    (lambda record: spec(record, source="/etc"), "source '/etc', which is invalid"),
    (lambda record: spec(record, source="a/.."), "source 'a/..', which is invalid"),
    (lambda record: spec(record, source="elsewhere"), "it came from a folder named elsewhere; pass --encoder"),
    (lambda record: spec(record, weights="0" * 32), "is not the encoder that the run was trained with .*weights"),
    (lambda record: spec(record, shape=[32]), "is not the encoder .*other shape"),
    (lambda record: spec(record, layers="99"), "has hidden states 0 to 4; got 99"),
    (lambda record: spec(record, dtype="complex64"), "dtype"),
    (lambda record: spec(record, precision="float8"), "precision"),
    (lambda record: spec(record, role="codes"), "other layers"),
    (lambda record: spec(record, limits={"max_seconds": "long"}), "invalid options"),
    (lambda record: spec(record, preprocessing={"imported": "emobox"}), "imported from another toolkit"),
    (lambda record: spec(record, preprocessing=[]), "has an invalid record"),
]


@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_a_malformed_record_is_one_line(copy: Path, number: int) -> None:
    change, message = CHANGES[number]
    rewritten(copy, change)
    # a value of another type is found when the record is read, before anything looks at it
    with pytest.raises(MmerError, match=rf"{message}|is damaged \(\w+ of another type\)") as caught:
        loaded(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe\x00", b"[" * 100_000, b'"x"'])
def test_a_record_that_is_not_json_is_one_line(copy: Path, content: bytes) -> None:
    (copy / "run.json").write_bytes(content)
    with pytest.raises(MmerError, match=r"run.json"):
        loaded(copy)


def test_weights_of_another_shape_or_none_are_one_line(copy: Path) -> None:
    path = copy / "final-seed0" / "weights.safetensors"
    weights = load_file(path)
    save_file({name: torch.zeros(2) for name in weights}, path)
    with pytest.raises(MmerError, match=r"final-seed0"):
        loaded(copy)
    path.write_bytes(b"\xff" * 64)
    with pytest.raises(MmerError, match=r"final-seed0"):
        loaded(copy)


def test_a_file_much_larger_than_the_head_is_not_read(copy: Path) -> None:
    path = copy / "final-seed0" / "weights.safetensors"
    record = json.loads((path.parent / "final.json").read_text())
    save_file({"head.weight": torch.zeros(4_000_000)}, path)
    record["digests"]["weights.safetensors"] = sha256(path.read_bytes()).hexdigest()
    (path.parent / "final.json").write_text(json.dumps(record))
    with pytest.raises(MmerError, match=r"weights.safetensors does not fit the head \(16000\d+ bytes"):
        loaded(copy)


def test_a_link_out_of_the_folder_is_refused(copy: Path, tmp_path: Path) -> None:
    path = copy / "final-seed0" / "weights.safetensors"
    outside = path.rename(tmp_path / "outside.safetensors")
    path.symlink_to(outside)
    with pytest.raises(MmerError, match=r"weights.safetensors leads out of the run folder"):
        loaded(copy)


def test_an_encoder_with_a_file_that_leads_elsewhere_is_refused(tuned: RunFolder, tmp_path: Path) -> None:
    run = RunFolder(Path(shutil.copytree(tuned.path, tmp_path / "run")))
    fold = next(iter(run.identity["folds"]))
    (run.model(fold, 0).path / "audio" / "adapter_config.json").write_text('{"base_model_name_or_path": "/etc"}')
    with pytest.raises(MmerError, match=r"holds 'adapter_config.json', which is not part of a tuned encoder"):
        loaded(run.path, fold=fold)


def test_a_fold_or_a_folder_that_does_not_exist_is_one_line(concat: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(MmerError, match=r"has no model of fold 9 and seed 0; folds: 0, 1, 2"):
        loaded(concat.path, fold="9")
    with pytest.raises(MmerError, match=r"has no model of fold ../../x and seed 0"):
        loaded(concat.path, fold="../../x")
    with pytest.raises(MmerError, match=r"gone is not a run folder"):
        loaded(tmp_path / "gone")
    with pytest.raises(MmerError, match=r"has no run\.json"):
        loaded(tmp_path)

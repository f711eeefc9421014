import importlib
import importlib.util
import json
import re
from pathlib import Path

import pytest
import soundfile
import torch

from cache.errors import MmerError
from featurize.corpora.catalog import read_corpus
from featurize.corpora.columns import parse_columns
from featurize.corpora.imported import write_imported
from featurize.extraction.job import job_of
from tests.support.voices import RATE_HZ, tone


def test_a_data_set_without_a_name_and_splits_of_another_corpus_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(MmerError, match="hf: names no data set; expected hf:OWNER/NAME"):
        write_imported("hf:", tmp_path)
    with pytest.raises(MmerError, match="--split is for hf:OWNER/NAME and audformat:FOLDER, not for demo; remove it"):
        job_of("demo", device=torch.device("cpu"), splits=("train",))


@pytest.mark.parametrize("prefix", ["hf", "audformat"])
def test_a_missing_library_is_one_line_with_its_name(prefix: str, tmp_path: Path) -> None:
    package, install = {"hf": ("datasets", "'datasets[audio]'"), "audformat": ("audformat", "audformat")}[prefix]
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(MmerError, match=f"{prefix}: needs .*by pip install {re.escape(install)}$"):
        write_imported(f"{prefix}:{tmp_path}", tmp_path / "out")


def test_local_folders_of_hugging_face_become_manifests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra datasets is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "train.csv").write_text("sentence,mood,sex\nhello,0,f\nyou,1,m\n")
    table = write_imported(f"hf:{tmp_path / 'table'}", tmp_path / "out", ["train"])
    reading = read_corpus("manifest", table, columns=parse_columns(["text=sentence", "label=mood"], ["sex"]))
    assert [(item.id, item.text, item.label, item.split, dict(item.further)) for item in reading.utterances] == [
        ("train-000000", "hello", "0", "train", {"sex": "f"}),
        ("train-000001", "you", "1", "train", {"sex": "m"}),
    ]
    with pytest.raises(MmerError, match="has no split 'dev'; its splits: train"):
        write_imported(f"hf:{tmp_path / 'table'}", tmp_path / "out", ["dev"])


def test_recordings_of_a_folder_stay_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra datasets is not installed")
    try:
        importlib.import_module("torchcodec")
    except (ImportError, OSError) as error:
        pytest.skip(f"datasets needs torchcodec for folders of recordings: {error}"[:80])
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    home = tmp_path / "sounds" / "train"
    home.mkdir(parents=True)
    soundfile.write(home / "a.wav", tone(0.2), RATE_HZ)
    (home / "metadata.csv").write_text("file_name,emotion\na.wav,sad\n")
    table = write_imported(f"hf:{tmp_path / 'sounds'}", tmp_path / "out")
    assert json.loads(table.read_text())["audio"] == str(home / "a.wav")


def test_recordings_in_a_data_set_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra datasets is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    soundfile.write(tmp_path / "a.wav", tone(0.2), RATE_HZ)
    content = (tmp_path / "a.wav").read_bytes()
    kinds = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    features = datasets.Features({"clip": kinds, "label": datasets.ClassLabel(names=["glad", "sad"])})
    rows = datasets.Dataset.from_dict({"clip": [{"bytes": content, "path": "a.wav"}], "label": [1]}, features=features)
    (tmp_path / "stored").mkdir()
    rows.cast_column("clip", datasets.Audio(decode=False)).to_parquet(tmp_path / "stored" / "train.parquet")
    stored = write_imported(f"hf:{tmp_path / 'stored'}", tmp_path / "out")
    (utterance,) = read_corpus("manifest", stored).utterances
    assert (utterance.audio, utterance.label) == ("audio/train-000000.wav", "sad")
    assert (tmp_path / "out" / utterance.audio).read_bytes() == content


def test_an_audformat_database_becomes_a_manifest(tmp_path: Path) -> None:
    audformat = pytest.importorskip("audformat", reason="the extra audformat is not installed")
    pd = pytest.importorskip("pandas", reason="audformat needs pandas")
    database = audformat.Database("small")
    database.schemes["emotion"] = audformat.Scheme("str", labels=["sad", "glad"])
    database.schemes["speaker"] = audformat.Scheme("str", labels={"s1": {"gender": "f"}, "s2": {"gender": "m"}})
    database.schemes["words"] = audformat.Scheme("str", labels={"a01": "Der Lappen"})
    database.splits["test"] = audformat.Split("test")
    files = database["files"] = audformat.Table(audformat.filewise_index(["wav/a.wav", "wav/b.wav"]), split_id="test")
    for column, values in {"speaker": ["s1", "s2"], "words": ["a01", "a01"]}.items():
        files[column] = audformat.Column(scheme_id=column)
        files[column].set(values)
    index = audformat.segmented_index(["wav/a.wav", "wav/a.wav", "wav/b.wav"], ["0s", "1s", "0s"], ["1s", "2s", pd.NaT])
    parts = database["parts"] = audformat.Table(index)
    parts["emotion"] = audformat.Column(scheme_id="emotion")
    parts["emotion"].set(["sad", "glad", "sad"])
    database.save(tmp_path / "small")
    table = write_imported(f"audformat:{tmp_path / 'small'}", tmp_path / "out", ["test"])
    reading = read_corpus(
        "manifest", table, allow_outside=True, columns=parse_columns(["label=emotion", "text=words"], ["gender"])
    )
    assert [(i.audio, i.start_s, i.end_s, i.label, i.speaker, i.further["gender"]) for i in reading.utterances] == [
        (str(tmp_path / "small/wav/a.wav"), None, 1.0, "sad", "s1", "f"),
        (str(tmp_path / "small/wav/a.wav"), 1.0, 2.0, "glad", "s1", "f"),
        (str(tmp_path / "small/wav/b.wav"), None, None, "sad", "s2", "m"),
    ]
    assert {utterance.text for utterance in reading.utterances} == {"Der Lappen"}
    with pytest.raises(MmerError, match="has no table 'moods'; its tables: files, parts"):
        write_imported(f"audformat:{tmp_path / 'small'}:moods", tmp_path / "out")
    with pytest.raises(MmerError, match=r"no db\.yaml in"):
        write_imported(f"audformat:{tmp_path}", tmp_path / "out")

import json
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest

from cache.errors import MmerError
from cache.layout import COMMITTED, FAILED
from cache.packs.catalog import detect_layout, open_pack
from cache.packs.importing import import_pack
from cache.packs.third_party import ImportOptions
from cache.store import FeatureCache
from tests.support.packs import emobox_record, frames, write_emobox

TURNS = ["Ses01F_impro01_F000", "Ses03M_script01_1_M002"]


def test_features_and_metadata_become_a_cache(tmp_path: Path) -> None:
    folder = write_emobox(tmp_path / "wavlm-base", {name: frames(len(name)) for name in TURNS}, dataset="iemocap")
    assert detect_layout(folder) == "emobox"
    import_pack(open_pack(folder), tmp_path / "a.h5")
    cache = FeatureCache(tmp_path / "a.h5")
    assert cache.header["corpus"]["name"] == "iemocap"
    columns = attrgetter("id", "label", "speaker", "session", "duration_s")
    assert [columns(utterance) for utterance in cache.utterances] == [
        (TURNS[0], "hap", "Ses01F", "1", 1.0), (TURNS[1], "hap", "Ses03M", "3", 1.0)
    ]  # fmt: skip
    assert cache.utterances[0].audio == f"downloads/iemocap/wav/{TURNS[0]}.wav"
    stream = cache.stream("wavlm-base")
    assert stream.spec.preprocessing["imported"] == "emobox"
    assert stream.spec.rate_hz == 50.0
    np.testing.assert_array_equal(stream.read(1), frames(len(TURNS[1])))


def test_metadata_may_be_json_and_elsewhere(tmp_path: Path) -> None:
    folder = write_emobox(tmp_path / "enc", {"a": frames(2), "b": frames(3)})
    records = [json.loads(line) for line in (folder / "toy.jsonl").read_text().splitlines()]
    (folder / "toy.jsonl").unlink()
    by_key = {record.pop("key"): record for record in records}
    (tmp_path / "toy.json").write_text(json.dumps(by_key))
    assert detect_layout(folder) == "emotion2vec-files"
    pack = open_pack(folder, ImportOptions(metadata=tmp_path / "toy.json"), "emobox")
    assert [utterance.id for utterance in pack.utterances] == ["a", "b"]
    (tmp_path / "toy.json").rename(folder / "toy.json")
    (folder / "label_map.json").write_text('{"hap": "happy"}')
    assert [utterance.id for utterance in open_pack(folder).utterances] == ["a", "b"]


def test_all_layers_are_turned_to_rows_of_layers(tmp_path: Path) -> None:
    layers = np.stack([frames(6, seed=layer) for layer in range(3)])  # (layers, frames, dim)
    folder = write_emobox(tmp_path / "enc", {"a": layers})
    import_pack(open_pack(folder), tmp_path / "a.h5")
    stream = FeatureCache(tmp_path / "a.h5").stream("enc")
    assert (stream.spec.shape, stream.spec.layers, stream.lengths.tolist()) == ((3, 4), "all", [6])
    np.testing.assert_array_equal(stream.read(0)[:, 1], layers[1])


def test_recordings_that_were_left_out_fail_with_a_reason(tmp_path: Path) -> None:
    folder = write_emobox(tmp_path / "enc", {"a": frames(2), "long": frames(3)})
    (folder / "toy-long.npy").unlink()
    import_pack(open_pack(folder), tmp_path / "a.h5")
    stream = FeatureCache(tmp_path / "a.h5").stream("enc")
    assert stream.state.tolist() == [COMMITTED, FAILED]
    assert stream.reason(1) == "not in the pack enc"


def test_files_may_mirror_the_tree_of_the_recordings(tmp_path: Path) -> None:
    folder = write_emobox(tmp_path / "enc", {"a": frames(2)})
    (folder / "wav").mkdir()
    (folder / "toy-a.npy").rename(folder / "wav" / "a.npy")
    assert list(open_pack(folder).streams["enc"].entries) == ["a"]


def test_spans_of_longer_recordings_are_kept(tmp_path: Path) -> None:
    folder = write_emobox(tmp_path / "enc", {"a": frames(2)}, start_time=4.5, end_time=9.5)
    (utterance,) = open_pack(folder).utterances
    assert (utterance.start_s, utterance.end_s) == (4.5, 9.5)


def test_features_without_a_record_are_refused(tmp_path: Path) -> None:
    folder = write_emobox(tmp_path / "enc", {"a": frames(2)})
    np.save(folder / "toy-b.npy", frames(3))
    with pytest.raises(MmerError, match=r"1 of 2 feature files have no record in .*first: .*toy-b.npy.*--metadata"):
        open_pack(folder)


def test_odd_metadata_is_one_line(tmp_path: Path) -> None:
    folder = write_emobox(tmp_path / "enc", {"a": frames(2), "b": frames(2)})
    metadata = folder / "toy.jsonl"
    for records, message in [
        ([emobox_record("a", emo=3)], "line 1: field emo must be str, got 3"),
        ([emobox_record(name) for name in "aab"], "matches two records|duplicate id a"),
        ([emobox_record("a", length="long"), emobox_record("b")], "duration_s must be number, got 'long'"),
        ([emobox_record("a", end_time=0, start_time=1), emobox_record("b")], "end_s of a must lie after start_s"),
        ([emobox_record("b"), emobox_record("c", wav="x/toy-b.wav"), emobox_record("a")], "matches two records"),
        ([emobox_record("x")], "have no record in"),
    ]:
        metadata.write_text("".join(json.dumps(record) + "\n" for record in records))
        with pytest.raises(MmerError, match=message):
            open_pack(folder, layout="emobox")


def test_metadata_must_be_named_where_it_is_not_clear(tmp_path: Path) -> None:
    folder = write_emobox(tmp_path / "enc", {"a": frames(2)})
    (folder / "toy.jsonl").rename(tmp_path / "toy.jsonl")
    with pytest.raises(MmerError, match="holds no metadata files of EmoBox; choose the file with --metadata"):
        open_pack(folder, layout="emobox")
    for name in ("toy_train_fold_1.jsonl", "toy_test_fold_1.jsonl"):
        (folder / name).write_text((tmp_path / "toy.jsonl").read_text())
    with pytest.raises(MmerError, match=r"holds 2 \(toy_test_fold_1, toy_train_fold_1\) metadata files"):
        open_pack(folder)
    with pytest.raises(MmerError, match="applies to EmoBox only; this pack has another layout"):
        open_pack(folder, ImportOptions(metadata=tmp_path / "toy.jsonl"), "emotion2vec-files")


def test_keys_of_several_datasets_stay_whole(tmp_path: Path) -> None:
    folder = write_emobox(tmp_path / "enc", {"a": frames(2)})
    np.save(folder / "more-a.npy", frames(3))
    with (folder / "toy.jsonl").open("a") as file:
        file.write(json.dumps(emobox_record("a", dataset="more")))
    pack = open_pack(folder)
    assert [utterance.id for utterance in pack.utterances] == ["toy-a", "more-a"]
    assert pack.header["corpus"]["name"] == "enc"

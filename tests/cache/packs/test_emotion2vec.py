from collections.abc import Callable
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest

from cache.errors import MmerError
from cache.packs.catalog import detect_layout, open_pack
from cache.packs.importing import import_pack
from cache.packs.third_party import ImportOptions
from cache.store import FeatureCache
from tests.support.packs import frames, write_emotion2vec

TURNS = ["Ses01F_impro01_F000", "Ses01F_impro01_M000", "Ses05M_script03_2_F001"]


def test_packed_features_become_a_cache(tmp_path: Path) -> None:
    arrays = {name: frames(rows) for name, rows in zip(TURNS, [3, 0, 5], strict=True)}
    folder = write_emotion2vec(tmp_path / "feats", arrays, labels=["ang", "neu", "hap"])
    assert detect_layout(folder) == "emotion2vec"
    import_pack(open_pack(folder, ImportOptions(corpus="iemocap")), tmp_path / "a.h5")
    cache = FeatureCache(tmp_path / "a.h5")
    stream = cache.stream("emotion2vec")
    for index, name in enumerate(TURNS):
        np.testing.assert_array_equal(stream.read(index), arrays[name])
    assert [(utterance.label, utterance.speaker, utterance.session) for utterance in cache.utterances] == [
        ("ang", "Ses01F", "1"), ("neu", "Ses01M", "1"), ("hap", "Ses05F", "5")
    ]  # fmt: skip
    assert (stream.spec.rate_hz, stream.spec.role, stream.spec.dtype) == (50.0, "audio", "float32")
    assert stream.spec.imported
    assert cache.header["corpus"]["name"] == "iemocap"


def test_speakers_are_not_guessed_for_an_unknown_corpus(tmp_path: Path) -> None:
    folder = write_emotion2vec(tmp_path / "feats", {name: frames(2) for name in TURNS})
    pack = open_pack(folder)
    assert pack.header["corpus"]["name"] == "feats"
    assert {utterance.speaker for utterance in pack.utterances} == {""}


def test_the_key_is_of_the_values_and_not_of_their_order(tmp_path: Path) -> None:
    arrays = {name: frames(rows, seed=rows) for name, rows in zip("abc", [3, 1, 5], strict=True)}
    shuffled = {name: arrays[name] for name in "cab"}
    other = {**arrays, "c": arrays["c"] + 1}
    keys = [
        open_pack(write_emotion2vec(tmp_path / name, held)).streams["emotion2vec"].spec.key
        for name, held in (("one", arrays), ("two", shuffled), ("three", other))
    ]
    assert keys[0] == keys[1] != keys[2]


def test_a_manifest_tells_ids_and_durations_where_labels_are_missing(tmp_path: Path) -> None:
    folder = write_emotion2vec(tmp_path / "feats", {"a": frames(2), "b": frames(3)})
    (folder / "train.tsv").write_text("/data\nwav/a.wav\t16000\nwav/b.wav\t24000\n")
    columns = attrgetter("id", "audio", "duration_s", "label")
    assert [columns(utterance) for utterance in open_pack(folder).utterances] == [
        ("a", "wav/a.wav", 1.0, "neu"), ("b", "wav/b.wav", 1.5, "neu")
    ]  # fmt: skip
    (folder / "train.emo").unlink()
    assert [(utterance.id, utterance.label) for utterance in open_pack(folder).utterances] == [("a", ""), ("b", "")]


def test_several_splits_are_one_stream(tmp_path: Path) -> None:
    write_emotion2vec(tmp_path / "feats", {"a": frames(2)}, name="train")
    write_emotion2vec(tmp_path / "feats", {"b": frames(3)}, name="valid")
    stream = open_pack(tmp_path / "feats").streams["emotion2vec"]
    assert [stream.entries[name].rows for name in "ab"] == [2, 3]
    write_emotion2vec(tmp_path / "feats", {"a": frames(3)}, name="valid")
    with pytest.raises(MmerError, match="duplicate id a"):
        open_pack(tmp_path / "feats")


def _text(name: str, text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_text(text)

    return write


def _array(values: object) -> Callable[[Path], None]:
    return lambda folder: np.save(folder / "train.npy", np.asarray(values))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_text("train.lengths", "3\n3\n"), r"sums to 6 rows, train.npy has shape \(5, 4\)"),
        (_text("train.lengths", "3\n1\n1\n"), "has 3 lengths, but 2 ids"),
        (_text("train.lengths", "3\n-2\n"), "lengths line 2 must be a number of rows, got '-2'"),
        (_text("train.emo", "a\tneu\n"), "has 2 lengths, but 1 ids"),
        (_text("train.emo", "a neu\nb neu\n"), "emo line 1 must be an id, a tab and a label, got 'a neu'"),
        (_text("train.emo", "a\tneu\na\tneu\n"), "duplicate id a"),
        (_text("train.tsv", "/data\nb.wav\t1\na.wav\t1\n"), "do not list the same ids in the same order"),
        (_text("train.tsv", "/data\nb.wav\n"), "tsv line 2 must be a path, a tab and a number of samples"),
        (_array(np.full((5, 4), np.nan)), "train.npy .a. holds NaN"),
        (_array(np.full((5, 4), 1e300)), "train.npy .a. holds NaN, infinity or values beyond the range of float32"),
        (_array(np.zeros((5, 4), np.int64)), "train.npy .a. is int64; features must be one of float16"),
        (_array(np.array([{}] * 5, dtype=object)), "pickles are never loaded"),
        (_array(np.zeros((5, 0), np.float32)), r"has shape \(3, 0\)"),
        (lambda folder: (folder / "train.npy").unlink(), "no file .*train.npy"),
        (lambda folder: (folder / "train.emo").unlink(), "has no ids for its rows; put train.emo"),
        (lambda folder: (folder / "train.emo").write_bytes(b"a\t\xff\n"), "train.emo is not UTF-8"),
    ],
)
def test_counts_that_disagree_and_odd_values_are_one_line(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    folder = write_emotion2vec(tmp_path / "feats", {"a": frames(3), "b": frames(2)})
    damage(folder)
    with pytest.raises(MmerError, match=message) as error:
        open_pack(folder)
    assert "\n" not in str(error.value)


def test_one_file_per_recording_is_taken_by_its_name(tmp_path: Path) -> None:
    for number, name in enumerate(TURNS):
        folder = tmp_path / "feats" / name[:5]
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{name}.npy", frames(number + 1))
    (tmp_path / "feats" / "._junk.npy").write_bytes(b"of macOS")
    assert detect_layout(tmp_path / "feats") == "emotion2vec-files"
    stream = open_pack(tmp_path / "feats").streams["emotion2vec"]
    assert sorted(stream.entries) == TURNS
    np.save(tmp_path / "feats" / f"{TURNS[0]}.npy", frames(1))
    with pytest.raises(MmerError, match="duplicate id Ses01F_impro01_F000"):
        open_pack(tmp_path / "feats")


def test_ids_with_a_slash_are_paths_of_files_where_the_cache_has_them(tmp_path: Path) -> None:
    for number, name in enumerate(("A/1", "B/1")):
        path = tmp_path / "feats" / f"{name}.npy"
        path.parent.mkdir(parents=True)
        np.save(path, frames(number + 1))
    pack = open_pack(tmp_path / "feats", ImportOptions(known_ids=frozenset({"A/1", "B/1", "C/1"})))
    stream = pack.streams["emotion2vec"]
    assert {name: entry.rows for name, entry in stream.entries.items()} == {"A/1": 1, "B/1": 2}
    with pytest.raises(MmerError, match="duplicate id 1"):
        open_pack(tmp_path / "feats", ImportOptions(known_ids=frozenset({"1"})))


def test_one_vector_per_utterance_is_one_row(tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        np.save(tmp_path / f"{name}.npy", frames(7, seed=number).mean(axis=0))
    import_pack(open_pack(tmp_path, ImportOptions(role="text")), tmp_path / "a.h5")
    stream = FeatureCache(tmp_path / "a.h5").stream("emotion2vec")
    assert stream.lengths.tolist() == [1, 1]
    assert (stream.spec.shape, stream.spec.rate_hz, stream.spec.role) == ((4,), 0.0, "text")
    np.testing.assert_array_equal(stream.read(1)[0], frames(7, seed=1).mean(axis=0))


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (frames(3, dim=5), r"c.npy is float32 of 2 dimensions with rows of \(5,\), expected .*\(4,\)"),
        (frames(3)[0], r"c.npy is float32 of 1 dimensions"),
        (frames(3).astype(np.float16), "c.npy is float16 of 2 dimensions"),
        (np.float32(1), r"c.npy has shape \(\)"),
    ],
)
def test_a_file_unlike_the_others_is_named(tmp_path: Path, odd: np.ndarray, message: str) -> None:
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", frames(3))
    np.save(tmp_path / "c.npy", odd)
    with pytest.raises(MmerError, match=message):
        open_pack(tmp_path)


@pytest.mark.parametrize("dtype", ["float16", ">f4", "float64"])
def test_floats_are_stored_as_they_are_and_doubles_as_float32(tmp_path: Path, dtype: str) -> None:
    np.save(tmp_path / "a.npy", frames(3).astype(dtype))
    import_pack(open_pack(tmp_path), tmp_path / "a.h5")
    stream = FeatureCache(tmp_path / "a.h5").stream("emotion2vec")
    assert stream.spec.dtype == ("float16" if dtype == "float16" else "float32")
    np.testing.assert_array_equal(stream.read(0), frames(3).astype(dtype))

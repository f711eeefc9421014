from pathlib import Path

import h5py
import numpy as np
import pytest

from cache.audit import Problem, grouped, noted, summarize, verify, verify_recordings
from cache.layout import StreamPlan, read_layout
from cache.rows import to_stored
from cache.store import FeatureCache
from cache.writer import CacheWriter, Row


def poke(path: Path, name: str, row: int, value: bytes) -> None:
    region = read_layout(path).streams["enc"].regions[name]
    with path.open("rb+") as file:
        file.seek(region.offset + row * region.row_bytes)
        file.write(value)


def test_a_sound_cache_has_no_problem(toy: tuple[Path, StreamPlan]) -> None:
    assert verify(FeatureCache(toy[0])) == []


@pytest.mark.parametrize(
    ("name", "row", "value", "id", "message"),
    [
        ("values", 4, b"\xff", "b", "checksum differs"),
        ("checksum", 0, b"\xff", "a", "checksum differs"),
        ("state", 0, b"\x07", "a", "impossible state 7"),
        ("reason", 2, bytes(200), "c", "failed without a reason"),
        ("input_digest", 3, bytes(16), "d", "without an input digest"),
    ],
)
def test_damage_is_found_and_named(  # noqa: PLR0917 - one argument per column
    toy: tuple[Path, StreamPlan], name: str, row: int, value: bytes, id: str, message: str
) -> None:
    poke(toy[0], name, row, value)
    (problem,) = verify(FeatureCache(toy[0]))
    assert (problem.stream, problem.id) == ("enc", id)
    assert message in problem.problem


def test_nan_is_found_even_with_a_right_checksum(toy: tuple[Path, StreamPlan]) -> None:
    values = np.ones((3, 4), np.float32)
    values[1, 1] = np.nan
    with CacheWriter(read_layout(toy[0])) as writer:
        writer.commit([Row(stream="enc", index=0, stored=to_stored(values, "float16"), digest=b"d" * 16)])
    assert verify(FeatureCache(toy[0])) == [Problem("enc", "a", "holds NaN or infinity")]


def test_a_key_of_another_spec_is_found(toy: tuple[Path, StreamPlan]) -> None:
    with h5py.File(toy[0], "r+") as file:
        file["streams/enc"].attrs["key"] = "0" * 32
    (problem,) = verify(FeatureCache(toy[0]))
    assert (problem.stream, problem.id) == ("enc", "")
    assert "does not belong to its spec" in problem.problem


def test_changed_and_missing_recordings_are_found(toy: tuple[Path, StreamPlan]) -> None:
    cache = FeatureCache(toy[0])
    digests: dict[str, bytes | str] = {
        "a": bytes(cache.stream("enc").input_digest[0]),
        "b": b"other" + bytes(11),
        "d": "missing",
    }
    found = verify_recordings(cache, lambda utterance, stream: digests[utterance.id])
    assert [(problem.id, problem.problem) for problem in found] == [
        ("b", "the recording is not the one that was featurized"),
        ("d", "missing"),
    ]


def test_summary_is_what_info_promises(toy: tuple[Path, StreamPlan]) -> None:
    summary = summarize(FeatureCache(toy[0]))
    assert summary["utterances"] == 4
    assert summary["failures"] == [{"id": "c", "stream": "enc", "reason": "missing"}]
    assert summary["streams"]["enc"] == {
        "rows": 10,
        "dim": 4,
        "dtype": "float16",
        "committed": 3,
        "failed": 1,
        "pending": 0,
        "bytes": 80,
        "key": toy[1].spec.key,
    }


def test_notes_of_committed_rows_are_listed(toy: tuple[Path, StreamPlan]) -> None:
    stored = to_stored(np.ones((3, 4), np.float32), "float16")
    with CacheWriter(read_layout(toy[0])) as writer:
        writer.commit([Row(stream="enc", index=0, stored=stored, digest=b"d" * 16, note="silent")])
    assert noted(FeatureCache(toy[0])) == [{"id": "a", "stream": "enc", "note": "silent"}]


def test_reasons_are_grouped_by_their_kind_and_utterances_are_counted_once() -> None:
    items = [
        {"id": name, "stream": stream, "reason": f"missing: not found{hint} (tried calls/{name}.wav)"}
        for stream in ("mel", "wave")
        for name, hint in (("a", ""), ("b", "; B.wav is there"))
    ]
    items += [{"id": "c", "stream": "mel", "reason": "truncated: 10 of 20 bytes; known defect"}]
    assert [str(group) for group in grouped(items, "reason")] == [
        "2 x missing: not found (first: a in mel: missing: not found (tried calls/a.wav))",
        "c in mel: truncated: 10 of 20 bytes; known defect",
    ]

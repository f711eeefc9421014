import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import CacheMissing, CacheUnreadable
from cache.layout import BOOKKEEPING, StreamPlan, create_file, read_layout, read_weights, reason_bytes
from cache.utterance import COLUMNS, Utterance
from tests.support.toys import create, plan_for, utterances_named

HEADER = {"mmer_version": "0", "created": "2026", "corpus": {"name": "toy"}}


def test_the_file_is_what_format_1_says(toy: tuple[Path, StreamPlan]) -> None:
    with h5py.File(toy[0]) as file:
        assert (file.attrs["format"], file.attrs["format_version"]) == ("mmer-cache", 1)
        assert json.loads(file.attrs["corpus"])["name"] == "toy"
        assert set(file["utterances"]) == set(COLUMNS) - {"votes", "further"}  # no utterance has one
        stream = file["streams/enc"]
        assert set(stream) == {"offsets", "values", *BOOKKEEPING}
        assert stream["offsets"].dtype == np.int64
        assert stream["offsets"][()].tolist() == [0, 3, 8, 8, 10]
        assert stream["values"].shape == (10, 4)
        assert stream["state"][()].tolist() == [1, 1, 2, 1]
        assert stream["reason"][2] == b"missing"
        assert stream["input_digest"].dtype.itemsize == 16
        assert stream["checksum"].dtype == np.uint64
        assert file["weights/enc/w"][()].tolist() == [0, 1, 2]


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_whatever_is_written_later_is_contiguous_aligned_and_allocated(tmp_path: Path, dtype: str) -> None:
    create(tmp_path / "a.h5", utterances_named("ab"), [plan_for([3, 500], dtype=dtype)])
    regions = read_layout(tmp_path / "a.h5").streams["enc"].regions
    assert ("scales" in regions) == (dtype == "int8")
    for region in regions.values():
        assert region.offset > 0
        assert region.offset % 4096 == 0
        assert region.end <= (tmp_path / "a.h5").stat().st_size


def test_values_are_sparse_until_written(tmp_path: Path) -> None:
    create(tmp_path / "a.h5", utterances_named("a"), [plan_for([10_000_000], dim=64)])
    found = (tmp_path / "a.h5").stat()
    assert found.st_size > 10_000_000 * 64 * 2
    assert found.st_blocks * 512 < 1_000_000


def test_a_stream_without_rows_reads_back_empty(tmp_path: Path) -> None:
    create(tmp_path / "a.h5", utterances_named("ab"), [plan_for([0, 0])])
    assert read_layout(tmp_path / "a.h5").streams["enc"].regions["values"].shape == (0, 4)


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9)
numbers = st.none() | st.floats(0, 1e6)


@settings(max_examples=15)  # each writes a file
@given(
    st.lists(
        st.builds(
            Utterance,
            id=texts.filter(bool),
            audio=texts,
            text=texts,
            label=texts,
            speaker=texts,
            turn=st.none() | st.integers(0, 99),
            duration_s=numbers,
            valence=numbers,
        ),
        min_size=1,
        max_size=4,
        unique_by=lambda utterance: utterance.id,
    )
)
def test_utterances_round_trip(tmp_path_factory: pytest.TempPathFactory, utterances: list[Utterance]) -> None:
    path = tmp_path_factory.mktemp("utterances") / "a.h5"
    create_file(path, header=HEADER, utterances=utterances, plans=[plan_for([1] * len(utterances))], weights={})
    assert list(read_layout(path).utterances) == utterances


def test_an_existing_file_is_never_opened_for_overwriting(toy: tuple[Path, StreamPlan]) -> None:
    before = toy[0].read_bytes()
    with pytest.raises(OSError, match="exists"):
        create_file(toy[0], header=HEADER, utterances=[], plans=[], weights={})
    assert toy[0].read_bytes() == before


def test_no_cache_at_all_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(CacheMissing, match=r"no cache at .*a.h5; .*make one with mmer-featurize"):
        read_layout(tmp_path / "a.h5")


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all", bytes(5000)])
def test_a_file_that_is_no_hdf5_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(
        CacheUnreadable, match=r"is not a cache file but (empty|a file of another kind); choose a cache file"
    ):
        read_layout(tmp_path / "a.h5")


def test_another_hdf5_file_is_refused(tmp_path: Path) -> None:
    h5py.File(tmp_path / "a.h5", "w").close()
    with pytest.raises(CacheUnreadable, match="not an mmer cache"):
        read_layout(tmp_path / "a.h5")


@pytest.mark.parametrize(("version", "way_out"), [(2, "upgrade mmer"), (0, "run mmer-featurize again")])
def test_another_format_version_is_refused(toy: tuple[Path, StreamPlan], version: int, way_out: str) -> None:
    with h5py.File(toy[0], "r+") as file:
        file.attrs["format_version"] = version
    with pytest.raises(CacheUnreadable, match=f"format {version}, this mmer reads format 1; {way_out}"):
        read_layout(toy[0])


@pytest.mark.parametrize("share", [0.2, 0.6, 0.99])
def test_a_truncated_copy_is_refused(toy: tuple[Path, StreamPlan], share: float) -> None:
    os.truncate(toy[0], int(toy[0].stat().st_size * share))
    with pytest.raises(CacheUnreadable, match=r"truncated|not a readable cache|damaged"):
        read_layout(toy[0])


def test_a_cache_without_its_utterances_is_damaged(toy: tuple[Path, StreamPlan]) -> None:
    with h5py.File(toy[0], "r+") as file:
        del file["utterances/label"]
    with pytest.raises(CacheUnreadable, match=r"damaged \(.*label"):
        read_layout(toy[0])


def test_weights_are_read_by_encoder_and_name(toy: tuple[Path, StreamPlan]) -> None:
    assert {name: list(arrays) for name, arrays in read_weights(toy[0]).items()} == {"enc": ["w"]}


@given(st.text())
def test_reasons_fit_and_stay_text(reason: str) -> None:
    held = reason_bytes(reason)
    assert len(held) <= 200
    assert reason.encode("utf-8", "replace").decode().startswith(held.decode())


@pytest.mark.parametrize("size_bytes", [0, 1, 2_000, 20_000, 60_000])
def test_a_creation_without_room_ends_in_an_error_and_not_in_a_signal(tmp_path: Path, size_bytes: int) -> None:
    program = f"""
import resource
from pathlib import Path
import numpy as np
from cache.errors import DiskFull
from tests.support.toys import create, plan_for, utterances_named
resource.setrlimit(resource.RLIMIT_FSIZE, ({size_bytes}, {size_bytes}))
try:
    create(Path({str(tmp_path / "a.h5")!r}), utterances_named("abcd"), [plan_for([3000] * 4)], enc=dict(w=np.ones(9)))
except DiskFull as error:
    kept = error
    raise SystemExit(7)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (7, "")
    assert [path.name for path in tmp_path.iterdir() if path.name != "a.h5.lock"] == []

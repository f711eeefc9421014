"""Of several views, a batch holds one for each utterance: drawn from data seed and epoch, and from nothing else."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch

from fusion.data.features import CachedFeatures
from fusion.data.views import ViewDraw, alternatives
from tests.support.drawn_views import COUNT, DIM, LACKING, TRAIN, VIEWS, rows_of_view, views_source, write_views_cache

ALL = np.arange(COUNT)
WAYS = pytest.mark.parametrize("resident_bytes", [None, 0], ids=["resident", "mapped"])
DRAW = ViewDraw(data_seed=0, epoch=1)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_views_cache(tmp_path_factory.mktemp("views") / "a.h5")


@functools.cache
def opened(path: Path | str, resident_bytes: int | None) -> CachedFeatures:
    """Opens a cache once for all draws from it."""
    return views_source(path, resident_bytes=resident_bytes)


def drawn(path: Path | str, draw: ViewDraw | None, resident_bytes: int | None = None) -> list[int]:
    """Reads the view of each utterance, in batches of seven; -1 without one; checks that its rows are whole."""
    source = opened(path, resident_bytes)
    found = []
    for batch in source.batches([ALL[start : start + 7] for start in range(0, COUNT, 7)], ["text.view"], draw):
        for index, rows, mask in zip(
            batch.indices.tolist(), batch.features["text.view"], batch.masks["text.view"], strict=True
        ):
            number = int(source.ids[index][1:])
            view = int(rows[0, 0]) - 10 * number if mask.any() else -1
            found.append(view)
            if view >= 0:
                assert int(mask.sum()) == rows_of_view(view, number)
                expected = torch.zeros_like(rows)
                expected[: rows_of_view(view, number)] = 10 * number + view
                assert torch.equal(rows, expected)
    return found


@WAYS
def test_one_view_is_read_whole_and_only_one_that_exists(path: Path, resident_bytes: int | None) -> None:
    for epoch in range(1, 30):
        views = drawn(path, ViewDraw(data_seed=0, epoch=epoch), resident_bytes)
        for index, view in enumerate(views):
            present = [number for number in range(VIEWS) if number not in LACKING.get(index, ())]
            assert view in (present or [-1])


def test_held_and_mapped_views_are_the_same(path: Path) -> None:
    assert drawn(path, DRAW) == drawn(path, DRAW, 0)


def test_the_draw_depends_on_data_seed_and_epoch_alone(path: Path) -> None:
    assert drawn(path, DRAW) == drawn(path, ViewDraw(data_seed=0, epoch=1))
    assert drawn(path, DRAW) != drawn(path, ViewDraw(data_seed=0, epoch=2))
    assert drawn(path, DRAW) != drawn(path, ViewDraw(data_seed=1, epoch=1))
    source = views_source(path)
    alone = [source.batches([np.array([index])], ["text.view"], DRAW) for index in ALL]
    together = dict(zip(ALL.tolist(), drawn(path, DRAW), strict=True))
    for index, batches in zip(ALL.tolist(), alone, strict=True):
        (batch,) = batches
        if together[index] >= 0:
            assert int(batch.features["text.view"][0, 0, 0]) == 10 * index + together[index]


def test_every_view_is_drawn_equally_often(path: Path) -> None:
    views = np.array([drawn(path, ViewDraw(data_seed=0, epoch=epoch)) for epoch in range(1, 61)])
    others = [index for index in ALL.tolist() if index not in LACKING]
    counts = np.bincount(views[:, others].ravel(), minlength=VIEWS)
    assert counts.sum() == 60 * len(others)
    assert np.abs(counts / counts.sum() - 1 / VIEWS).max() < 0.03
    assert set(views[:, 4].tolist()) == {0, 2}
    assert (np.diff(views, axis=0) != 0).any(axis=0)[others].all()


@WAYS
def test_without_a_draw_the_first_view_is_read(path: Path, resident_bytes: int | None) -> None:
    expected = [0 if index not in LACKING else {4: 0, 5: 1, 6: -1}[index] for index in ALL.tolist()]
    assert drawn(path, None, resident_bytes) == expected


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_every_stored_type_is_read(tmp_path: Path, dtype: str) -> None:
    path = write_views_cache(tmp_path / "a.h5", dtype=dtype)
    source, plain = views_source(path), views_source(path, resident_bytes=0)
    for one, other in zip(
        source.batches([TRAIN], ["text.view"], DRAW), plain.batches([TRAIN], ["text.view"], DRAW), strict=True
    ):
        assert torch.equal(one.features["text.view"], other.features["text.view"])
        assert one.features["text.view"].dtype == torch.float32
    found = source.batch(TRAIN, ["text.view"]).features["text.view"]
    np.testing.assert_allclose(found[:, 0, 0].numpy()[:4], [0, 10, 20, 30], rtol=1e-2)


@WAYS
def test_shards_are_read_as_one_file(path: Path, tmp_path: Path, resident_bytes: int | None) -> None:
    names = [f"u{index}" for index in range(COUNT)]
    write_views_cache(tmp_path / "p-1.h5", names=names[:17])
    write_views_cache(tmp_path / "p-2.h5", names=names[17:])
    assert drawn(tmp_path / "p-*.h5", DRAW, resident_bytes) == drawn(path, DRAW)


def test_lengths_do_not_depend_on_the_draw(path: Path) -> None:
    source = views_source(path)
    longest = [
        max((rows_of_view(view, index) for view in range(VIEWS) if view not in LACKING.get(index, ())), default=0)
        for index in ALL.tolist()
    ]
    assert source.lengths(ALL, ["text.view"]).tolist() == longest


def test_all_views_count_for_memory_and_identity(path: Path) -> None:
    source = views_source(path)
    without = sum(
        4 * DIM * rows_of_view(view, index)
        for index in ALL.tolist()
        for view in range(VIEWS)
        if view not in LACKING.get(index, ())
    )
    assert source.size_bytes - sum(source.lengths(ALL, [role]).sum() * size for role, size in _row_bytes().items()) == (
        without
    )
    text = source.identity(["text.view"])["text.view"]
    assert [part.split()[0] for part in text.split(", ")] == ["words~cbca1", "words~cbca2", "words~cbca3"]
    assert list(source.batch(TRAIN).features) == ["audio", "text", "chars", "text.view"]


def _row_bytes() -> dict[str, int]:
    return {"audio": 24, "text": 4 * DIM, "chars": 1}


def test_a_value_that_is_not_finite_is_told_with_its_view(path: Path) -> None:
    source = views_source(path)
    assert "in words~cbca1 are not finite" in source.nonfinite_text(0, "text.view")


def test_views_are_grouped_in_the_order_of_their_numbers() -> None:
    streams = {"text.view.10": "j", "text.view.2": "b", "audio": "v", "text.view": "a", "audio.view": "l"}
    assert alternatives(streams) == {"audio": ["v"], "text.view": ["a", "b", "j"], "audio.view": ["l"]}

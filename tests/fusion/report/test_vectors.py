from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cache.errors import MmerError
from fusion.heads.catalog import HEADS
from fusion.report.attention import binned
from fusion.report.finished import open_runs
from fusion.report.vectors import load_test_model, map_by_tsne, vectors_of
from tests.support.every_head import SINGLE, made, read_by
from tests.support.heads import batch_of


def test_vectors_are_those_before_the_classifier(reported: Path) -> None:
    (run,), notes = open_runs([reported])
    assert notes == []
    model = load_test_model(run)
    vectors = vectors_of(model)
    assert len(vectors) == 24  # a third of 72 utterances is the test subset of the first fold
    layer = model.head.classifier[-1]  # type: ignore[index]
    weight, bias = (getattr(layer, name).detach().numpy() for name in ("weight", "bias"))
    logits = vectors @ weight.T + bias
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    ids = [model.source.ids[index] for index in model.indices]
    stored = {row.row["id"]: run.probabilities[index] for index, row in enumerate(run.rows) if row.fold == model.fold}
    np.testing.assert_allclose(shares, [stored[name] for name in ids], atol=1e-5)


def test_a_head_outside_mmer_is_not_imported(reported: Path) -> None:
    (run,), _ = open_runs([reported])
    own = replace(run, record={**run.record, "decides": {**run.identity, "fusion": "their_heads:Gated"}})
    with pytest.raises(MmerError, match=r"its head their_heads:Gated is code outside mmer, which is not imported$"):
        load_test_model(own)


def test_a_map_keeps_groups_apart_and_is_repeated_exactly() -> None:
    random = np.random.default_rng(0)
    groups = np.concatenate([random.normal(size=(20, 6)), random.normal(size=(20, 6)) + 12]).astype(np.float32)
    points = map_by_tsne(groups)
    np.testing.assert_array_equal(points, map_by_tsne(groups))
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1) + np.eye(40) * 1e9
    assert ((distances.argmin(axis=1) < 20) == (np.arange(40) < 20)).all()


def test_bins_average_what_they_cover() -> None:
    matrix = np.arange(12.0).reshape(3, 4)
    np.testing.assert_allclose(binned(matrix, 3, 4), matrix)
    np.testing.assert_allclose(binned(matrix, 1, 1), [[matrix.mean()]])
    np.testing.assert_allclose(binned(matrix, 3, 2), [[0.5, 2.5], [4.5, 6.5], [8.5, 10.5]])
    assert binned(matrix, 8, 24).shape == (8, 24)  # more bins than items


@pytest.mark.parametrize("name", sorted(HEADS))
def test_every_head_with_one_classifier_returns_its_vector(name: str) -> None:
    head = made(name, SINGLE.get(name, "both")).eval()
    output = head(read_by(head.config, batch_of(6), training=False))
    if name == "score":
        assert output.embedding is None  # a sum of models has no common vector
    else:
        assert output.embedding is not None
        assert len(output.embedding) == len(output.logits)

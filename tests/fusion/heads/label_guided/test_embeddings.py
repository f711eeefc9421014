from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import MmerError
from fusion.head_config import HeadInputs
from fusion.heads.label_guided.embeddings import LabelEmbeddings, codebook_rows, tonal_embeddings
from tests.support.heads import AUDIO, TEXT, head_inputs

SPACE = 12  # where codes and contexts of the toy quantizer meet


def without_weight(name: str) -> HeadInputs:
    inputs = head_inputs()
    return replace(
        inputs, weights={"audio": {key: part for key, part in inputs.weights["audio"].items() if key != name}}
    )


@given(st.floats(0.01, 100), st.floats(0.01, 100))
def test_scale_changes_no_cosine(of_rows: float, of_labels: float) -> None:
    torch.manual_seed(0)
    labels, x = LabelEmbeddings(4, 6), torch.randn(2, 3, 6)
    before = labels(x)
    assert float(before.detach().abs().max()) <= 1 + 1e-6
    labels.rows.data *= of_labels
    torch.testing.assert_close(labels(x * of_rows), before)


def test_the_likeness_is_a_cosine_per_row_and_label() -> None:
    labels, x = LabelEmbeddings(4, 6), torch.randn(2, 3, 6)
    expected = torch.nn.functional.cosine_similarity(x[:, :, None], labels.rows, dim=-1)
    torch.testing.assert_close(labels(x), expected)


def test_rows_start_where_they_are_told_and_others_stay() -> None:
    labels = LabelEmbeddings(2, 3)
    second = labels.rows[1].tolist()
    labels.initialize([np.array([1.0, 2.0, 3.0]), None])
    assert labels.rows.tolist() == [[1, 2, 3], second]


@pytest.mark.parametrize(
    ("source", "space", "shapes"),
    [
        ("codebook", "contrastive", {"rows": (4, SPACE), "project.weight": (SPACE, AUDIO)}),
        ("random", "contrastive", {"rows": (4, SPACE), "project.weight": (SPACE, AUDIO)}),
        ("text", "contrastive", {"rows": (4, TEXT), "lift.weight": (SPACE, TEXT), "project.weight": (SPACE, AUDIO)}),
        ("codebook", "lift", {"rows": (4, SPACE), "lift.weight": (AUDIO, SPACE)}),
        ("random", "lift", {"rows": (4, AUDIO)}),
        ("text", "lift", {"rows": (4, TEXT), "lift.weight": (AUDIO, TEXT)}),
    ],
)
def test_tonal_labels_meet_frames_in_one_space(source: str, space: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    labels = tonal_embeddings(head_inputs(), source=source, space=space, trained=False)
    there = {name: tuple(part.shape) for name, part in labels.named_parameters() if not name.endswith("bias")}
    assert there == shapes
    assert labels(torch.randn(2, 5, AUDIO)).shape == (2, 5, 4)


def test_frames_pass_the_projection_of_pre_training_which_is_trained_only_on_request() -> None:
    weights = head_inputs().weights["audio"]
    labels = tonal_embeddings(head_inputs(), source="codebook", space="contrastive", trained=False)
    assert isinstance(labels.project, torch.nn.Linear)
    np.testing.assert_array_equal(labels.project.weight.detach(), weights["project_hid.weight"])
    np.testing.assert_array_equal(labels.project.bias.detach(), weights["project_hid.bias"])
    assert not labels.project.weight.requires_grad
    trained = tonal_embeddings(head_inputs(), source="codebook", space="contrastive", trained=True)
    assert all(part.requires_grad for part in trained.parameters())


def test_in_the_contrastive_space_labels_are_projected_codevectors() -> None:
    weights, vectors = head_inputs().weights["audio"], np.random.default_rng(0).standard_normal((4, 10))
    rows = codebook_rows(vectors, weights, "contrastive")
    np.testing.assert_allclose(rows[2], weights["project_q.weight"] @ vectors[2] + weights["project_q.bias"])


def test_a_lifted_label_is_projected_back_to_where_its_codes_are() -> None:
    weights, vectors = head_inputs().weights["audio"], np.random.default_rng(0).standard_normal((4, 10))
    labels = tonal_embeddings(head_inputs(), source="codebook", space="lift", trained=False)
    labels.initialize(codebook_rows(vectors, weights, "lift"))
    back = labels.vectors().detach().numpy() @ weights["project_hid.weight"].T + weights["project_hid.bias"]
    np.testing.assert_allclose(back, codebook_rows(vectors, weights, "contrastive"), atol=1e-4)


@pytest.mark.parametrize("name", ["codevectors", "project_q.weight", "project_hid.bias"])
def test_a_cache_without_quantizer_is_told_with_the_command_that_adds_it(name: str) -> None:
    message = (
        f"lacks {name}; run mmer-featurize for this cache with --encoder wav2vec2-base, or pass --set tonal_labels=off"
    )
    with pytest.raises(MmerError, match=message):
        tonal_embeddings(without_weight(name), source="codebook", space="contrastive", trained=False)
    with pytest.raises(MmerError, match=message):
        tonal_embeddings(without_weight(name), source="random", space="contrastive", trained=False)


def test_labels_at_random_need_no_quantizer_in_the_space_of_frames() -> None:
    inputs = replace(head_inputs(), weights={})
    assert tonal_embeddings(inputs, source="random", space="lift", trained=False).rows.shape == (4, AUDIO)


def test_a_quantizer_for_frames_of_another_width_is_refused() -> None:
    inputs = replace(head_inputs(), weights={"audio": head_inputs(audio=(30,)).weights["audio"]})
    with pytest.raises(MmerError, match="frames are 24 wide, but the quantizer of their encoder expects 30"):
        tonal_embeddings(inputs, source="codebook", space="contrastive", trained=False)

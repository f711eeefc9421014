"""Joint vectors are the only channel between two streams, and each layer has one set of weights for two passes."""

from typing import Any

import pytest
import torch

from fusion.heads.jfm import JointBlock, JointVectors
from fusion.nn.attention import TransformerLayer
from fusion.nn.sequences import MaskedRows

LENGTH = 4
SPEECH, TEXT, HEADS = 16, 32, 4


def block_of(length: int = LENGTH, seed: int = 0) -> JointBlock:
    torch.manual_seed(seed)
    layers = {
        "audio": TransformerLayer(dim=SPEECH, heads=HEADS, feedforward=32, dropout=0, norm_first=True),
        "text": TransformerLayer(dim=TEXT, heads=HEADS, feedforward=48, dropout=0),
    }
    return JointBlock(layers, length=length)


def streams_of(seed: int = 1) -> dict[str, MaskedRows]:
    generator = torch.Generator().manual_seed(seed)
    sizes = {"audio": (11, SPEECH), "text": (7, TEXT)}
    mask = {"audio": torch.tensor([[True] * 11, [True] * 6 + [False] * 5]), "text": torch.ones(2, 7, dtype=torch.bool)}
    return {
        modality: MaskedRows(torch.randn(2, *size, generator=generator), mask[modality])
        for modality, size in sizes.items()
    }


def changed(streams: dict[str, MaskedRows], modality: str) -> dict[str, MaskedRows]:
    rows, mask = streams[modality]
    return {**streams, modality: MaskedRows(rows + torch.randn(rows.shape), mask)}


@pytest.mark.parametrize(("moved", "other"), [("audio", "text"), ("text", "audio")])
@pytest.mark.parametrize("length", [0, 1, LENGTH])
def test_joint_vectors_are_the_only_channel(moved: str, other: str, length: int) -> None:
    block, streams = block_of(length), streams_of()
    before, after = block(streams)[other].rows, block(changed(streams, moved))[other].rows
    assert torch.equal(before, after) == (length == 0)


@pytest.mark.parametrize(("moved", "other"), [("audio", "text"), ("text", "audio")])
def test_vectors_from_an_absent_stream_are_not_attended_to(moved: str, other: str) -> None:
    block, streams = block_of(), streams_of()
    streams[moved] = MaskedRows(streams[moved].rows, torch.zeros_like(streams[moved].mask))
    rows, mask = streams[other]
    valid = mask[..., None]
    alone = block.layers[other](rows, mask)
    torch.testing.assert_close(block(streams)[other].rows * valid, alone * valid, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("modality", "other"), [("audio", "text"), ("text", "audio")])
def test_both_streams_go_on_from_the_same_place(modality: str, other: str) -> None:  # T003-3
    second: Any = block_of(seed=1)
    middle = block_of()(streams_of())
    joints = second.joints[modality](second.layers[other], middle[other])
    extended = torch.cat([middle[modality].rows, joints.rows], dim=1)
    mask = torch.cat([middle[modality].mask, joints.mask], dim=1)
    found = second(middle)[modality].rows
    torch.testing.assert_close(found, second.layers[modality](extended, mask)[:, : middle[modality].rows.shape[1]])
    from_next = second({**middle, other: second(middle)[other]})[modality].rows
    assert not torch.allclose(found, from_next, atol=1e-3)


def test_vectors_pass_two_linear_layers_with_a_relu_between() -> None:  # J-6
    joints, (rows, mask) = JointVectors(length=LENGTH, source_dim=SPEECH, dim=TEXT), streams_of()["audio"]
    layer: Any = block_of().layers["audio"]
    valid = torch.cat([mask, torch.ones(2, LENGTH, dtype=torch.bool)], dim=1)
    gathered = layer(torch.cat([rows, joints.vectors.expand(2, -1, -1)], dim=1), valid)[:, -LENGTH:]
    mlp: Any = joints.mlp
    assert (mlp[0].out_features, mlp[2].out_features) == (max(SPEECH, TEXT) // 2, TEXT)
    torch.testing.assert_close(joints(layer, streams_of()["audio"]).rows, mlp[2](mlp[0](gathered).clamp(min=0)))


def test_streams_keep_their_rows_and_widths_over_blocks() -> None:
    streams = streams_of()
    for seed in range(2):
        streams = block_of(seed=seed)(streams)
    assert {modality: stream.rows.shape for modality, stream in streams.items()} == {
        "audio": (2, 11, SPEECH),
        "text": (2, 7, TEXT),
    }


def test_layers_run_twice_with_the_same_weights() -> None:
    block = block_of()
    calls = {"audio": 0, "text": 0}
    for modality, layer in block.layers.items():
        layer.register_forward_hook(lambda *_, modality=modality: calls.update({modality: calls[modality] + 1}))
    block(streams_of())
    assert calls == {"audio": 2, "text": 2}
    assert len({id(parameter) for parameter in block.parameters()}) == 2 * 12 + 2 * (1 + 4)


def test_vectors_of_the_two_directions_are_distinct_and_both_learn() -> None:
    block: Any = block_of()
    loss = sum(stream.rows.square().sum() for stream in block(streams_of()).values())
    torch.autograd.backward(loss)
    vectors = {modality: joints.vectors for modality, joints in block.joints.items()}
    assert {modality: tuple(vector.shape) for modality, vector in vectors.items()} == {
        "text": (LENGTH, SPEECH),
        "audio": (LENGTH, TEXT),
    }
    assert all(vector.grad is not None and vector.grad.abs().min() > 0 for vector in vectors.values())


def test_joint_vectors_have_no_order() -> None:
    block: Any = block_of()
    streams, order = streams_of(), torch.tensor([2, 0, 3, 1])
    joints, layer = block.joints["text"], block.layers["audio"]
    before, rows = joints(layer, streams["audio"]).rows, block(streams)["text"].rows
    with torch.no_grad():
        joints.vectors.copy_(joints.vectors[order])
    torch.testing.assert_close(joints(layer, streams["audio"]).rows, before[:, order], atol=1e-5, rtol=0)
    torch.testing.assert_close(block(streams)["text"].rows, rows, atol=1e-5, rtol=0)


def test_vectors_and_mlp_have_the_sizes_of_pmf() -> None:
    torch.manual_seed(0)
    joints: Any = JointVectors(length=4, source_dim=768, dim=1024)
    assert [tuple(joints.mlp[index].weight.shape) for index in (0, 2)] == [(512, 768), (1024, 512)]
    assert joints.vectors.std().item() == pytest.approx(0.02, rel=0.05)


def test_a_stream_without_a_layer_passes() -> None:
    streams, whole = streams_of(), block_of()
    layer: Any = whole.layers["text"]
    block = JointBlock({"text": layer}, length=LENGTH)
    after = block(streams)
    assert after["audio"] is streams["audio"]
    assert not block.joints
    torch.testing.assert_close(after["text"].rows, layer(*streams["text"]))

import torch
from hypothesis import given
from hypothesis import strategies as st

from fusion.heads.label_guided.attention import LabelAttention, frame_weights, without_ends

MASK = torch.tensor([[True, True, True, False], [True, False, False, False], [False] * 4])


def attention(constraint: str = "C1") -> LabelAttention:
    torch.manual_seed(0)
    return LabelAttention(speech_dim=5, text_dim=3, constraint=constraint)


def test_weights_of_frames_sum_to_1_over_valid_ones_and_are_0_elsewhere() -> None:
    aligned = attention()(torch.randn(3, 6, 3), torch.randn(3, 4, 5), MASK, None)
    torch.testing.assert_close(aligned.weights.sum(dim=-1), MASK.any(dim=1).float()[:, None].expand(3, 6))
    assert not aligned.weights.masked_select(~MASK[:, None].expand(3, 6, 4)).any()


def test_identical_frames_are_heard_as_that_frame() -> None:
    frame = torch.randn(5)
    audio = torch.where(MASK[..., None], frame, 1e3)
    aligned = attention()(torch.randn(3, 6, 3), audio, MASK, None)
    torch.testing.assert_close((aligned.weights @ audio)[:2], frame.expand(2, 6, 5))


@given(st.integers(0, 1000))
def test_aligned_speech_lies_among_the_valid_frames(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    text, audio = 30 * torch.randn(3, 2, 3, generator=generator), torch.randn(3, 4, 5, generator=generator)
    heard = (attention()(text, audio, MASK, None).weights @ audio)[0]
    assert bool(((heard <= audio[0, :3].amax(0) + 1e-5) & (heard >= audio[0, :3].amin(0) - 1e-5)).all())


def test_attention_without_weights_is_the_same_for_all_frames_and_that_of_labels_is_their_product() -> None:
    module = LabelAttention(speech_dim=2, text_dim=3, constraint="C1")
    torch.nn.init.zeros_(module.bilinear)
    guides = torch.tensor([[[1.0, 0.0]]]), torch.eye(2)[None]
    aligned = module(torch.randn(1, 1, 3), torch.randn(1, 2, 2), torch.ones(1, 2).bool(), guides)
    assert aligned.guided.tolist() == [[[1, 0]]]
    assert aligned.learned.tolist() == [[[0.5, 0.5]]]


def test_the_bilinear_form_is_as_printed() -> None:
    module, text, audio = attention(), torch.randn(1, 6, 3), torch.randn(1, 4, 5)
    assert module.bilinear.shape == (5, 3)
    scores = torch.einsum("btk,sk,bfs->btf", text, module.bilinear, audio)
    learned = module(text, audio, MASK[:1], None).learned
    torch.testing.assert_close(learned, frame_weights(scores, MASK[:1]))


def test_variants_weigh_frames_by_either_attention_or_by_both() -> None:
    text, audio, mask = torch.randn(1, 6, 3), torch.randn(1, 4, 5), MASK[:1]
    guides = torch.randn(1, 6, 2), torch.randn(1, 4, 2)
    by = {name: attention(name)(text, audio, mask, guides) for name in ("C1", "C2", "C3", "C4")}
    label = frame_weights(guides[0] @ guides[1].transpose(1, 2), mask)
    torch.testing.assert_close(by["C3"].weights, label)
    torch.testing.assert_close(by["C2"].weights, (by["C1"].learned + label) / 2)
    assert torch.equal(by["C1"].weights, by["C1"].learned)
    assert torch.equal(by["C4"].weights, by["C1"].weights)
    assert not list(attention("C3").parameters())


def test_special_tokens_are_the_first_and_the_last_valid_ones() -> None:
    mask = torch.tensor([[True] * 5, [True, True, True, False, False], [True, False, False, False, False]])
    assert without_ends(mask).int().tolist() == [[0, 1, 1, 1, 0], [0, 1, 0, 0, 0], [0] * 5]


def test_the_bilinear_starts_with_a_deviation_of_a_fiftieth() -> None:  # L-8
    torch.manual_seed(0)
    bilinear = LabelAttention(speech_dim=768, text_dim=768, constraint="C1").bilinear
    torch.testing.assert_close(bilinear.std(), torch.tensor(0.02), atol=1e-4, rtol=0)

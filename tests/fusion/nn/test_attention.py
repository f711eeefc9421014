import pytest
import torch
from torch import Tensor, nn

from fusion.nn.attention import Attention, TransformerLayer, attention_heads_for

DIM, HEADS = 32, 4


def streams() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    mask = torch.arange(7) < torch.tensor([[7], [3]])
    return torch.randn(2, 5, DIM), torch.randn(2, 7, DIM), mask


def test_attention_is_that_of_torch() -> None:
    query, key, mask = streams()
    ours = Attention(dim=DIM, heads=HEADS, dropout=0.0).eval()
    theirs = nn.MultiheadAttention(DIM, HEADS, batch_first=True).eval()
    theirs.load_state_dict(ours.state_dict())
    expected = theirs(query, key, key, key_padding_mask=~mask)[0]
    torch.testing.assert_close(ours(query, key, mask), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("norm_first", [False, True])
def test_a_layer_is_that_of_torch(norm_first: bool) -> None:
    _, x, mask = streams()
    ours = TransformerLayer(dim=DIM, heads=HEADS, feedforward=64, dropout=0.1, norm_first=norm_first).eval()
    theirs = nn.TransformerEncoderLayer(
        DIM, HEADS, 64, activation="gelu", batch_first=True, norm_first=norm_first, dropout=0.1
    ).eval()
    theirs.load_state_dict(ours.state_dict())
    expected = theirs(x, src_key_padding_mask=~mask)
    torch.testing.assert_close(ours(x, mask)[mask], expected[mask], atol=1e-6, rtol=0)


def test_both_ways_to_attend_agree_where_dropout_drops_next_to_nothing() -> None:
    query, key, mask = streams()
    attention = Attention(dim=DIM, heads=HEADS, dropout=1e-7)
    plain = attention.eval()(query, key, mask)
    torch.testing.assert_close(attention.train()(query, key, mask), plain, atol=1e-5, rtol=0)


@pytest.mark.parametrize("training", [False, True])
def test_attention_over_nothing_is_0_and_its_gradients_are_finite(training: bool) -> None:
    query, key, mask = streams()
    attention = Attention(dim=DIM, heads=HEADS, dropout=0.2).train(training)
    query.requires_grad_()
    attended = attention(query, key, mask & torch.tensor([[False], [True]]))
    assert not attended[0].any()
    assert attended[1].any()
    attended.sum().backward()
    assert query.grad is not None
    assert torch.isfinite(query.grad).all()


def test_padding_may_hold_anything() -> None:
    query, key, mask = streams()
    attention = Attention(dim=DIM, heads=HEADS, dropout=0.0).eval()
    filled = key.masked_fill(~mask[..., None], 1e3)
    torch.testing.assert_close(attention(query, key, mask), attention(query, filled, mask), atol=1e-6, rtol=0)


def test_the_usual_number_of_heads_is_kept_where_it_divides_the_width() -> None:
    assert [attention_heads_for(dim, 0, usual=12) for dim in (768, 64, 39, 80, 13)] == [12, 8, 3, 10, 1]
    assert attention_heads_for(64, 4, usual=12) == 4
    with pytest.raises(ValueError, match="heads must divide the width 39: one of 1, 3, 13, 39, got 8"):
        attention_heads_for(39, 8, usual=12)


def test_a_width_that_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="width 30 cannot be divided among 4 heads"):
        Attention(dim=30, heads=4, dropout=0.0)

import pytest
import torch
from torch import Tensor

from fusion.nn.dropout import SPAN, SpanMask, seed_dropout, set_step


def hidden(share: float, *, rows: int = 500, seed: int = 0, step: int = 0) -> Tensor:
    """Returns the mask of hidden rows, bool ``(batch, rows)``."""
    mask = SpanMask(share).train()
    seed_dropout(mask, seed)
    set_step(mask, step)
    given = torch.ones(100, rows, 3)
    out = mask(given)
    assert ((out == 0) | (out == given)).all()
    whole: Tensor = (out == 0).all(dim=2)
    assert torch.equal(whole, (out == 0).any(dim=2))
    return whole


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_as_many_rows_are_hidden_as_asked_for_at_the_ends_as_in_the_middle(share: float) -> None:
    found = hidden(share).double()
    assert float(found.mean()) == pytest.approx(share, abs=0.02)
    assert float(found[:, :SPAN].mean()) == pytest.approx(share, abs=0.1)
    assert float(found[:, -SPAN:].mean()) == pytest.approx(share, abs=0.1)


def test_rows_are_hidden_in_spans() -> None:
    for utterance in hidden(0.2):
        text = "".join("x" if one else " " for one in utterance[SPAN:-SPAN].tolist())
        assert all(len(span) >= SPAN for span in text.strip("x").split())


def test_seed_and_step_decide() -> None:
    first, same, *others = (hidden(0.3, seed=seed, step=step) for seed, step in ((1, 2), (1, 2), (1, 3), (2, 2)))
    assert torch.equal(first, same)
    assert not any(torch.equal(first, other) for other in others)


def test_scoring_hides_nothing_and_layers_are_hidden_together() -> None:
    mask, stacked = SpanMask(0.9), torch.ones(2, 40, 3, 4)
    out = mask.train()(stacked)
    assert torch.equal((out == 0).flatten(2).all(dim=2), (out == 0).flatten(2).any(dim=2))
    assert (out == 0).any()
    assert torch.equal(mask.eval()(stacked), stacked)


def test_a_share_of_all_is_refused() -> None:
    with pytest.raises(ValueError, match=r"span_mask must lie in \[0, 1\), got 1.0"):
        SpanMask(1.0)

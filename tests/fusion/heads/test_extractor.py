"""The extractor is torch's encoder over valid rows, whatever stands in the padding."""

import torch
from torch import nn

from fusion.heads.jfm import Extractor


def test_layers_are_those_of_torch() -> None:
    torch.manual_seed(0)
    extractor = Extractor((16,), dim=16, layers=2, heads=8, dropout=0).eval()
    layer = nn.TransformerEncoderLayer(16, 8, 64, activation="gelu", batch_first=True)
    reference = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    reference.load_state_dict(extractor.state_dict())
    rows, mask = torch.randn(2, 5, 16), torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    found = extractor(rows, mask).rows
    expected = reference(rows, src_key_padding_mask=~mask)
    torch.testing.assert_close(found[mask], expected[mask], atol=1e-5, rtol=0)


def test_without_layers_rows_of_the_right_width_pass() -> None:
    rows, mask = torch.randn(2, 5, 16), torch.ones(2, 5, dtype=torch.bool)
    extractor = Extractor((16,), dim=16, layers=0, heads=8, dropout=0)
    assert torch.equal(extractor(rows, mask).rows, rows)
    assert not list(extractor.parameters())


def test_stacked_rows_of_another_width_are_mixed_and_projected() -> None:
    extractor = Extractor((3, 12), dim=16, layers=1, heads=8, dropout=0)
    rows, mask = torch.randn(2, 5, 3, 12), torch.tensor([[True] * 5, [True] * 4 + [False]])
    noisy = torch.where(mask[..., None, None], rows, 1e30)
    assert extractor(rows, mask).rows.shape == (2, 5, 16)
    torch.testing.assert_close(extractor(rows, mask).rows[mask], extractor(noisy, mask).rows[mask])

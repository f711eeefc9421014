import pytest
import torch

from fusion.head_config import AUDIO, TEXT, HeadInputs
from fusion.heads.build import build_head, count_parameters
from fusion.heads.catalog import config_for
from fusion.report.complexity import measure


@pytest.fixture(scope="module")
def inputs() -> HeadInputs:
    return HeadInputs(classes=("a", "b", "c", "d"), shapes={AUDIO: (768,), TEXT: (768,)}, layers={}, weights={})


def test_the_input_of_the_paper_is_0_78_mb(inputs: HeadInputs) -> None:
    head = build_head("concat", config_for("concat", {}), inputs, seed=0)
    found = measure(head)
    assert found.input_bytes == 4 * 768 * (245 + 22)
    assert dict(found.rows)["input of one utterance"] == "245 x 768 (audio) + 22 x 768 (text): 0.78 MB"
    assert found.parameters == count_parameters(head)
    assert found.parameter_bytes == 4 * found.parameters
    assert found.forward_s > 0
    assert found.backward_s > 0


def test_the_memory_of_a_pass_counts_the_outputs_of_layers_twice(inputs: HeadInputs) -> None:
    head = build_head("concat", config_for("concat", {"adapter": False, "dropout": 0.0}), inputs, seed=0)
    sizes: list[int] = []
    for module in head.modules():
        if not list(module.children()):
            module.register_forward_hook(
                lambda module, given, output: sizes.append(output.numel()) if torch.is_tensor(output) else None
            )
    found = measure(head)
    assert found.pass_bytes == 2 * 4 * sum(sizes[: len(sizes) // 7])  # of the first of seven equal passes
    assert head.training

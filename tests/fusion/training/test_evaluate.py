from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fusion.head import Batch, HeadOutput
from fusion.training.evaluate import predict_probabilities
from tests.support.trainings import ToyHead, toy_head, toy_source, write_cache


@pytest.fixture(scope="module")
def learnable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scoring") / "a.h5"
    write_cache(path)
    return path


def small(most: int, sizes: list[int]) -> ToyHead:
    """Builds a head that runs out of memory above a number of utterances; records the size of each batch."""
    head: Any = toy_head()
    forward = head.forward

    def limited(batch: Batch) -> HeadOutput:
        sizes.append(len(batch))
        if len(batch) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        output: HeadOutput = forward(batch)
        return output

    head.forward = limited
    limited_head: ToyHead = head
    return limited_head


def test_scoring_takes_smaller_batches_where_memory_does_not_suffice(learnable: Path) -> None:
    source, indices, sizes = toy_source(learnable), np.arange(20), list[int]()
    found = predict_probabilities(small(3, sizes), source, indices, batch_size=16)
    np.testing.assert_allclose(found, predict_probabilities(toy_head(), source, indices), atol=1e-6)
    assert sizes[:3] == [16, 8, 4]
    assert set(sizes[3:]) == {2}


def test_an_utterance_that_does_not_fit_alone_is_an_error(learnable: Path) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        predict_probabilities(small(0, []), toy_source(learnable), np.arange(4), batch_size=2)

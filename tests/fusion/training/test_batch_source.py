"""Training and evaluation over any source of batches."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cache.errors import MmerError
from fusion.data.features import BatchSource
from fusion.grid.stacking.training import train_stack
from fusion.head_config import AUDIO, TEXT
from fusion.training.checkpoint import load_checkpoint
from fusion.training.evaluate import predict_probabilities
from fusion.training.loop import train_fold
from fusion.training.model import TrainedModel
from tests.support.sources import MemorySource
from tests.support.trainings import (
    CONFIG,
    COUNT,
    DEV,
    LABELS,
    STREAMS,
    TEST,
    TRAIN,
    assert_same,
    toy_head,
    toy_source,
    write_cache,
)


@pytest.fixture(scope="module")
def learnable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cache") / "a.h5"
    write_cache(path, without={AUDIO: 3, TEXT: 7})
    return path


@pytest.fixture(scope="module")
def memory(learnable: Path) -> MemorySource:
    """The content of the cache, held in memory."""
    cached = toy_source(learnable)
    batches = [cached.batch(np.array([index])) for index in range(COUNT)]
    return MemorySource(
        {role: [batch.features[role][0][batch.masks[role][0]] for batch in batches] for role in STREAMS}, LABELS
    )


def test_a_source_in_memory_trains_and_scores_as_the_cache_does(learnable: Path, memory: MemorySource) -> None:
    cached, heads = toy_source(learnable), [toy_head(), toy_head()]
    sources: list[BatchSource] = [cached, memory]
    trained = [train_fold(head, source, TRAIN, DEV, CONFIG) for head, source in zip(heads, sources, strict=True)]
    assert_same(*trained)
    from_cache, from_memory = (
        predict_probabilities(head, source, TEST) for head, source in zip(heads, sources, strict=True)
    )
    np.testing.assert_array_equal(from_cache, from_memory)


def test_a_stack_trains_from_memory_as_from_the_cache(learnable: Path, memory: MemorySource) -> None:
    sources: list[BatchSource] = [toy_source(learnable), memory]
    configs = [CONFIG, replace(CONFIG, lr=0.003)]
    stacks = [train_stack([toy_head(), toy_head()], source, TRAIN, DEV, configs) for source in sources]
    for expected, model in zip(*stacks, strict=True):
        assert isinstance(expected, TrainedModel)
        assert isinstance(model, TrainedModel)
        assert_same(expected, model)


def test_a_training_from_memory_is_resumed_and_its_state_names_the_source(memory: MemorySource, tmp_path: Path) -> None:
    path = tmp_path / "state"
    whole = train_fold(toy_head(), memory, TRAIN, DEV, CONFIG)
    with pytest.raises(KeyboardInterrupt):
        train_fold(toy_head(), memory, TRAIN, DEV, CONFIG, checkpoint=path, stopping=lambda: True)
    assert load_checkpoint(path).config["streams"] == dict.fromkeys(STREAMS, "memory")
    assert_same(train_fold(toy_head(), memory, TRAIN, DEV, CONFIG, checkpoint=path), whole)


def test_a_feature_that_is_not_finite_is_named_by_its_source(memory: MemorySource) -> None:
    rows = {role: list(every) for role, every in memory.rows.items()}
    rows["text"][3] = torch.full_like(rows["text"][3], torch.inf)
    with pytest.raises(MmerError, match=r"; text of utterance u3 in memory is not finite$"):
        train_fold(toy_head(), MemorySource(rows, LABELS), TRAIN, DEV, CONFIG)

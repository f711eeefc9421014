"""Originals and their augmented views in one batch."""

from dataclasses import replace

import torch

from fusion.data.views import with_views
from fusion.head import Batch
from tests.support.heads import batch_of, collate, samples

ROLES = ("audio", "text")


def lacking(batch: Batch, role: str, place: int) -> Batch:
    return batch.without(role, torch.arange(len(batch)) == place)


def test_the_views_follow_the_originals() -> None:
    batch = collate(samples(3), extra={"audio": 5, "text.view": 7})
    twice, augmented = with_views(batch, ROLES)
    assert augmented.all()
    assert twice.labels.tolist() == batch.labels.tolist() * 2
    for role in ROLES:
        for place in range(3):
            own, view = twice.masks[role][place], twice.masks[role][3 + place]
            kept, source = batch.masks[role][place], batch.masks[f"{role}.view"][place]
            assert torch.equal(twice.features[role][place][own], batch.features[role][place][kept])
            assert torch.equal(twice.features[role][3 + place][view], batch.features[f"{role}.view"][place][source])


def test_a_role_without_views_stands_as_it_is() -> None:
    batch = batch_of(2)
    kept = replace(batch, features={role: x for role, x in batch.features.items() if role != "text.view"})
    twice, augmented = with_views(kept, ROLES)
    assert augmented.all()
    assert torch.equal(twice.features["text"][2:], twice.features["text"][:2])
    bare = replace(batch, features={role: batch.features[role] for role in ROLES})
    assert not with_views(bare, ROLES)[1].any()


def test_an_utterance_counts_as_augmented_when_all_it_has_is() -> None:
    batch = lacking(lacking(batch_of(4), "audio.view", 0), "audio", 1)
    batch = lacking(lacking(batch, "audio", 2), "text", 2)
    twice, augmented = with_views(batch, ROLES)
    assert augmented.tolist() == [False, True, False, True]
    assert not twice.masks["audio"][[5, 6]].any()  # lacking in the view too

"""Vectors before the classifier, as a map by t-SNE (van der Maaten and Hinton, 2008, JMLR 9).

Models of two folds have no common space, so a map shows the test subset of one model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cache.errors import MmerError
from fusion.arrays import ClassIds, Indices
from fusion.data.features import CachedFeatures
from fusion.head import Batch, Head
from fusion.heads.catalog import is_import_path
from fusion.pictures.vectors import draw_vectors
from fusion.report.finished import FinishedRun
from fusion.report.page import Pen, Picture, Pictures, Section
from fusion.run.load import load_model
from fusion.training.evaluate import map_batches

MOST = 1500  # utterances of a map; more points hide each other and take minutes
PERPLEXITY = 30.0  # default of scikit-learn; lower for fewer than 91 utterances
CONTRASTIVE = ("supervised", "ecl", "icl")  # names of the contrastive losses of heads


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedModel:
    """One model of a run with the features of its test subset.

    Attributes:
        head: trained head, in eval mode.
        source: features of the test utterances.
        indices: test utterances, at most `MOST`.
        classes: class of each of them, int64 ``(n,)``.
        fold: name of the fold.
        seed: seed of the model.
    """

    head: Head
    source: CachedFeatures
    indices: Indices
    classes: ClassIds
    fold: str
    seed: int


def load_test_model(run: FinishedRun) -> LoadedModel:
    """Loads the first model of a run with the features of its test subset.

    Args:
        run: a run of classes.

    Raises:
        MmerError: if the model cannot be loaded, or the cache lacks its features.
    """
    if run.cache is None:
        raise MmerError(f"{run.folder.path}: its cache is not found")
    if any(str(text).startswith("wave") for text in run.identity.get("tune", {}).values()):
        raise MmerError(f"{run.folder.path}: its encoder learns from recordings")
    if is_import_path(str(run.identity["fusion"])):
        raise MmerError(
            f"{run.folder.path}: its head {run.identity['fusion']} is code outside mmer, which is not imported"
        )
    first = run.results["folds"][0]
    fold, seed = str(first["fold"]), int(first["seed"])
    head = load_model(run.folder, fold, seed)
    index_of = {name: index for index, name in enumerate(run.cache.ids)}
    rows = [row for row in zip(run.rows, run.truth, strict=True) if (row[0].fold, row[0].seed) == (fold, seed)]
    missing = [row.row["id"] for row, _ in rows if row.row["id"] not in index_of]
    if missing:
        raise MmerError(f"{run.cache.path} has no utterance {missing[0]}")
    kept = np.unique(np.linspace(0, len(rows) - 1, min(MOST, len(rows))).round().astype(np.int64))
    indices = np.array([index_of[rows[position][0].row["id"]] for position in kept.tolist()], dtype=np.int64)
    classes = np.array([int(rows[position][1]) for position in kept.tolist()], dtype=np.int64)
    labels = np.full(len(run.cache), -1, dtype=np.int64)
    labels[indices] = classes
    source = CachedFeatures(run.cache, _streams(run, fold, head), labels, chosen=indices)
    return LoadedModel(head=head, source=source, indices=indices, classes=classes, fold=fold, seed=seed)


def vectors_of(model: LoadedModel) -> npt.NDArray[np.float32]:
    """Computes the vector before the classifier of each test utterance, ``(n, width)``.

    Raises:
        MmerError: if the head returns no such vector.
    """

    def of_batch(batch: Batch) -> Tensor:
        embedding = model.head(batch).embedding
        if embedding is None:
            raise MmerError(f"head {type(model.head).__name__} returns no vector before its classifier")
        return embedding

    vectors: npt.NDArray[np.float32] = map_batches(
        of_batch, model.source, model.indices, model.head.config.roles
    ).numpy()
    return vectors


def inputs_of(model: LoadedModel) -> npt.NDArray[np.float32]:
    """Computes the mean of the rows that the head reads of each test utterance, ``(n, width)``."""

    def of_batch(batch: Batch) -> Tensor:
        means = []
        for role in model.head.config.roles:
            rows = batch.features[role].float().flatten(2)  # (batch, rows, width)
            mask = batch.masks[role][..., None]
            means.append((rows * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1))
        return torch.cat(means, dim=1)

    vectors: npt.NDArray[np.float32] = map_batches(
        of_batch, model.source, model.indices, model.head.config.roles
    ).numpy()
    return vectors


def map_by_tsne(vectors: npt.NDArray[np.float32], seed: int = 0) -> npt.NDArray[np.float32]:
    """Computes points in the plane whose neighbours are those of the vectors, ``(n, 2)``.

    Args:
        vectors: at least four, ``(n, width)``.
        seed: random seed.
    """
    from sklearn.manifold import TSNE

    scaled = (vectors - vectors.mean(axis=0)) / max(float(vectors.std()), 1e-12)
    perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
    start = "pca" if min(scaled.shape) >= 2 else "random"
    points: npt.NDArray[np.float32] = TSNE(perplexity=perplexity, init=start, random_state=seed).fit_transform(scaled)
    return points


def vectors_section(
    runs: Sequence[FinishedRun], models: Sequence[LoadedModel | None], pen: Pen
) -> tuple[Section | None, list[str]]:
    """Returns a map for each run, and notes on runs without one.

    Args:
        runs: runs of classes.
        models: the loaded model of each run; None where it could not be loaded.
        pen: draws the page.
    """
    pictures: list[Picture] = []
    notes = []
    for run, model in zip(runs, models, strict=True):
        if model is None or len(model.indices) < 4:
            continue
        try:
            points = map_by_tsne(vectors_of(model))
        except MmerError as error:
            notes.append(f"no map of vectors: {error}")
            continue
        losses = " and ".join(name for name in CONTRASTIVE if model.head.config.loss_weights.get(name))
        name = f"{run.name}: " if len(runs) > 1 else ""
        with_losses = (
            f", trained with the contrastive loss {losses}"
            if losses
            else ", without a contrastive loss"
            if len(runs) > 1
            else ""
        )
        caption = f"{name}{len(points)} test utterances of fold {model.fold}, seed {model.seed}{with_losses}"
        if len(runs) == 1 and not run.identity.get("tune"):
            before = draw_vectors(map_by_tsne(inputs_of(model)), model.classes, run.labels)
            pictures.append(pen.picture(before, "Before the head: the mean of the rows that it reads"))
            caption = f"After the head: {caption}"
        pictures.append(pen.picture(draw_vectors(points, model.classes, run.labels), caption))
    if not pictures:
        return None, notes
    lead = (
        "t-SNE of the vectors before the classifier. Neighbours are alike; distances between groups and the axes mean "
        "nothing."
    )
    return Section(name="vectors", heading="Fused vectors", lead=lead, blocks=[Pictures(items=pictures)]), notes


def _streams(run: FinishedRun, fold: str, head: Head) -> dict[str, str]:
    """Returns role -> stream of the cache with the key of the run."""
    assert run.cache is not None
    chosen = run.record.get("fold_specs", {}).get(fold, {})
    streams = {}
    for role in head.config.roles:
        if role in chosen:
            streams[role] = str(chosen[role]["name"])
            continue
        name, _, key = str(run.identity["streams"][role]).rpartition(" ")
        alike = [held for held, stream in run.cache.streams.items() if stream.key == key]
        if not alike:
            raise MmerError(f"{run.cache.path} has no stream {name} with the key of {run.folder.path}")
        streams[role] = name if name in alike else alike[0]
    return streams

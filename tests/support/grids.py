"""Grids over the cache of `tests.support.runs`, and a record of their progress."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fusion.experiment.experiment import Experiment
from fusion.experiment.fields import configure
from fusion.grid.combinations import Combination, FieldValues, Model, ModelOutcome, models_of, plan_combinations
from fusion.grid.engine.local import Engine
from fusion.grid.engine.sources import Sources
from fusion.grid.journal import Journal
from fusion.grid.session import GridSession
from fusion.training.checkpoint import EpochScores
from tests.support.runs import QUICK, SMALL, reader_of

CPU = torch.device("cpu")


@dataclass
class GridTold:
    """Progress of a grid that keeps every call."""

    notes: list[str] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    epochs: list[tuple[str, EpochScores]] = field(default_factory=list)
    outcomes: dict[str, ModelOutcome] = field(default_factory=dict)  # by key of the model

    def note(self, note: str) -> None:
        self.notes.append(note)

    def start(self, models: Sequence[Model]) -> None:
        self.started += [model.key for model in models]

    def epoch(self, model: Model, scores: EpochScores) -> None:
        self.epochs.append((model.key, scores))

    def done(self, model: Model, outcome: ModelOutcome) -> None:
        self.outcomes[model.key] = outcome


def experiment(fusion: str, fields: FieldValues, **asked: Any) -> Experiment:
    """A quick run of a head; fields that begin with ``stream.`` name streams."""
    streams = {name.removeprefix("stream."): str(one) for name, one in fields.items() if name.startswith("stream.")}
    own = {name: one for name, one in fields.items() if not name.startswith("stream.")}
    head, training = configure(fusion, {**QUICK, **SMALL.get(fusion, {}), **own})
    return Experiment(fusion=fusion, head=head, training=training, streams=streams, **asked)


def planned(cache: Path, fusion: str, *every: FieldValues, **asked: Any) -> list[Combination]:
    """Plans combinations that can all be trained."""
    found, skipped = plan_combinations(every, lambda fields: experiment(fusion, fields, **asked), reader_of(cache))
    assert not skipped
    return found


def models(combinations: Sequence[Combination], *, folds: Sequence[str] = ()) -> list[Model]:
    """The models of all of them."""
    return [model for one in combinations for model in models_of(one, folds=folds)]


def sources(combinations: Sequence[Combination]) -> Sources:
    """The features of all of them."""
    return Sources([one.plan for one in combinations], CPU)


def trained(
    folder: Path, combinations: Sequence[Combination], *, engine: str = "shared", folds: Sequence[str] = ()
) -> tuple[Journal, GridTold]:
    """Trains all models by an engine."""
    journal, told = Journal(folder), GridTold()
    Engine(engine, journal=journal, progress=told, device=CPU).run(
        models(combinations, folds=folds), sources(combinations)
    )
    return journal, told


def session(
    cache: Path, fusion: str, folder: Path, *, engine: str = "shared", **asked: Any
) -> tuple[GridSession, GridTold]:
    """A grid that has not begun."""
    journal, told = Journal(folder), GridTold()
    made = GridSession(
        cache=reader_of(cache),
        experiment_of=lambda fields: experiment(fusion, fields, **asked),
        journal=journal,
        train=Engine(engine, journal=journal, progress=told, device=CPU).run,
        device=CPU,
        progress=told,
    )
    return made, told


def weights_of(folder: Path) -> Mapping[str, bytes]:
    """The weights of every model of a journal, by key."""
    return {path.parent.name: path.read_bytes() for path in folder.glob("models/*/weights.safetensors")}

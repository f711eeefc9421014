"""Second-stage pre-training as one call: an encoder for each fold, trained on the fold's training subset.

Source: LE-MER (Wang et al., Interspeech 2023, arXiv:2309.02106), which pre-trains its speech encoder a second time on
the training set of the corpus. Deviation: from cached features, the convolutions stay frozen (docs/decisions.md#l-14).
"""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import torch

from cache.errors import MmerError
from cache.files import check_unused
from cache.joined import AnyCache
from cache.version import mmer_version
from featurize.encoders.speech import HOP, RECEPTIVE_FIELD
from featurize.inputs.audio import MIN_SAMPLES, RATE_HZ
from fusion.arrays import Indices
from fusion.data.features import RESIDENT_SHARE
from fusion.data.memory import memory_needed
from fusion.end_to_end.pretraining.config import PretrainConfig
from fusion.end_to_end.pretraining.encoder import (
    CONV,
    STARTS,
    StartEncoder,
    find_request,
    load_start,
)
from fusion.end_to_end.pretraining.export import SETTINGS, FoldFolder, fold_folder, training_record
from fusion.end_to_end.pretraining.model import PretrainingModel
from fusion.end_to_end.pretraining.sources import ConvFeatures, Recordings, SpeechSource
from fusion.end_to_end.pretraining.training import PERPLEXITY, PretrainingProgress, pretrain_fold
from fusion.experiment.featurize_commands import corpus_of, featurize_command
from fusion.fingerprint import digest_of
from fusion.protocols.filters import Filters
from fusion.protocols.folds import Fold
from fusion.protocols.leaks import check_encoders
from fusion.protocols.own_folds import OwnFolds
from fusion.protocols.split import Split, split_cache
from fusion.run.folder import COST, RunFolder
from fusion.run.names import default_folder
from fusion.training.interrupt import StopRequested, never_stop
from fusion.training.loop import SAVE_EVERY_S
from fusion.training.steps import TOTAL

PACKAGES = ("torch", "transformers", "numpy")  # packages whose versions are recorded
WHAT = {CONV: "Transformer and quantizer, pre-trained", "wave": "convolutions, Transformer and quantizer, pre-trained"}
FIRST = 3  # utterances that a note names
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class PretrainRequest:
    """The options of a pre-training, not yet bound to a cache.

    Attributes:
        encoder: ``[NAME=]SOURCE``, or the name of an encoder in the cache.
        config: settings.
        start: ``conv`` to start from the convolutional features in the cache, ``wave`` from the recordings.
        root: folder of the recordings for ``wave``; None for the folder that the cache records.
        protocol: protocol that makes the folds; None for the default of the corpus.
        labels: label set, whose classes decide which utterances take part; None for the default of the corpus.
        only: column -> values that take part.
        folds: names of the folds; empty for all.
        allow_leak: accept an encoder that has seen test speakers of a fold.
        own_folds: folds of ``--folds``, in the place of a protocol.
    """

    encoder: str
    config: PretrainConfig
    start: str = CONV
    root: Path | None = None
    protocol: str | None = None
    labels: str | None = None
    only: Filters = field(default_factory=dict)
    folds: tuple[str, ...] = ()
    allow_leak: bool = False
    own_folds: OwnFolds | None = None

    def __post_init__(self) -> None:
        if self.own_folds and self.protocol:
            raise MmerError(
                f"--folds {self.own_folds.source} and --protocol {self.protocol} both define the folds; give only one"
            )
        if self.start not in STARTS:
            raise MmerError(f"--from must be one of {', '.join(STARTS)}, got {self.start!r}")
        if self.root is not None and self.start == CONV:
            raise MmerError("--root is only read with --from wave; leave it out, or pass --from wave")


@dataclass(frozen=True, kw_only=True)
class PretrainedFold:
    """A pre-trained encoder of one fold.

    Attributes:
        fold: name of the fold.
        train: number of utterances that it was trained on.
        curves: losses of every epoch by name: of the training subset, and with ``dev_`` of the development subset.
        steps: number of steps.
        seconds: training time in seconds.
        peak_bytes: peak memory in bytes.
        encoder: folder of the encoder.
    """

    fold: str
    train: int
    curves: Sequence[dict[str, float]]
    steps: int
    seconds: float
    peak_bytes: int
    encoder: Path


@dataclass(frozen=True, kw_only=True)
class PretrainedRun:
    """A finished pre-training.

    Attributes:
        folder: run folder.
        folds: pre-trained encoders by fold.
        notes: lines to print with them.
        command: ``mmer-featurize`` command that makes streams of the encoders.
    """

    folder: Path
    folds: Sequence[PretrainedFold]
    notes: Sequence[str]
    command: str

    @property
    def table(self) -> tuple[Sequence[str], Sequence[Sequence[object]]]:
        """Header and rows of the table of losses, of the first and of the last epoch."""
        header = ["fold", "train", "epochs", "steps", "loss", "dev loss", "accuracy", "perplexity", "seconds"]
        rows = [
            [
                fold.fold,
                fold.train,
                len(fold.curves),
                fold.steps,
                *(_change(fold, name) for name in (TOTAL, f"dev_{TOTAL}")),
                _change(fold, "accuracy"),
                _change(fold, PERPLEXITY, digits=1),
                f"{fold.seconds:.1f}",
            ]
            for fold in self.folds
        ]
        return header, rows

    @property
    def results(self) -> dict[str, Any]:
        """The run as plain values."""
        folds = [{**asdict(fold), "encoder": str(fold.encoder), "curves": list(fold.curves)} for fold in self.folds]
        return {"folder": str(self.folder), "folds": folds, "notes": list(self.notes), "featurize": self.command}


def pretrain_encoder(
    request: PretrainRequest,
    cache: AnyCache,
    *,
    out: Path | None = None,
    named_after: Path | None = None,
    device: torch.device = CPU,
    progress: PretrainingProgress,
    resident_share: float = RESIDENT_SHARE,
    save_every_s: float = SAVE_EVERY_S,
    replace: bool = False,
    stopping: StopRequested = never_stop,
) -> PretrainedRun:
    """Pre-trains an encoder on the training subset of each fold; an interrupted run is resumed.

    Args:
        request: encoder, settings and data.
        cache: open cache.
        out: run folder; by default a folder below ``runs/`` named after the cache, the encoder and the settings.
        named_after: path or pattern that names the default folder, the path of the cache by default.
        device: device of the training.
        progress: receives notes, folds, steps and epochs.
        resident_share: share of the device's memory for features that are held there, in [0, 1].
        save_every_s: least time between two writes of a checkpoint, in seconds.
        replace: delete another pre-training of the same folds in the folder first.
        stopping: called after every step; when it returns True, the checkpoint is written and the training stops.

    Raises:
        KeyboardInterrupt: if `stopping` returned True.
        MmerError: if encoder, stream, recordings and folds do not fit, the folder holds another pre-training, a loss
            is not finite, or memory runs out.
    """
    encoder_request = find_request(cache, request.encoder)
    plan = _Plan(request, cache, load_start(cache, encoder_request, request.start, seed=request.config.seed))
    for note in plan.notes:
        progress.note(note)
    folder = RunFolder(out or default_folder(named_after or cache.path, f"pretrain-{plan.start.name}-{plan.digest}"))
    if not any(folder.path.glob(f"*/{SETTINGS}")):
        check_unused(folder.path)
    with folder.locked():
        for fold in plan.folds:
            fold_run = fold_folder(folder.path, fold.name)
            if replace:
                fold_run.clear()
            fold_run.begin(plan.identity(fold), plan.provenance)
            if not _is_finished(fold_run, progress):
                if stopping():
                    raise KeyboardInterrupt
                plan.run(
                    fold,
                    fold_run,
                    device=device,
                    progress=progress,
                    resident_share=resident_share,
                    save_every_s=save_every_s,
                    stopping=stopping,
                )
            fold_run.delete(fold_run.state.name)
        folds = [plan.result(fold, fold_folder(folder.path, fold.name)) for fold in plan.folds]
    return PretrainedRun(folder=folder.path, folds=folds, notes=plan.notes, command=plan.command(folds))


class _Plan:
    """A pre-training that can start: folds, encoder, and the utterances that are long enough."""

    def __init__(self, request: PretrainRequest, cache: AnyCache, start: StartEncoder) -> None:
        self.request, self.cache, self.start, self.config = request, cache, start, request.config
        self.initial = {name: tensor.clone() for name, tensor in start.model.state_dict().items()}
        self.split = self._split()
        self.folds = _chosen(self.split, request.folds)
        self.notes = [self.split.promise, *self._leaks(), *self._short()]

    @property
    def shared_identity(self) -> dict[str, dict[str, Any]]:
        """Everything that decides the weights of every fold, as plain values by section."""
        start = self.start
        return {
            "training": asdict(self.config),
            "encoder": {"source": start.source, "revision": start.revision, "weights": start.weights},
            "data": {"from": self.request.start, "stream": f"{start.stream.spec.name} {start.stream.key}"},
            "split": {
                "protocol": self.split.protocol,
                **({"own_folds": folds.digest} if (folds := self.request.own_folds) else {}),
                "labels": digest_of(dict(self.split.labels.classes)),
            },
        }

    @property
    def digest(self) -> str:
        """Digest of the settings, for the name of the run folder."""
        only = {column: list(values) for column, values in self.request.only.items()}
        return digest_of({**self.shared_identity, "only": only})[:8]

    def identity(self, fold: Fold) -> dict[str, dict[str, Any]]:
        """Returns everything that decides the weights of a fold, as plain values by section."""
        shared = self.shared_identity
        subsets = {}
        for name, subset in (("train", fold.train), ("dev", fold.dev)):
            members = [(self.cache.ids[index], self._content(index)) for index in self.trainable(subset)[0].tolist()]
            subsets[name] = digest_of(sorted(members))
        return {
            **shared,
            "data": {**shared["data"], **subsets},
            "split": {**shared["split"], "fold": fold.name},
        }

    @property
    def provenance(self) -> dict[str, object]:
        """Other information to keep with the weights."""
        versions = {name: version(name) for name in PACKAGES}
        return {"cache": str(Path(self.cache.path).absolute()), "versions": {"mmer": mmer_version(), **versions}}

    def trainable(self, subset: Indices) -> tuple[Indices, Indices]:
        """Divides utterances into those that are long enough for a masked span, and the others."""
        long_enough = self._frames(subset) >= self.config.mask_length
        return subset[long_enough], subset[~long_enough]

    def run(
        self,
        fold: Fold,
        folder: FoldFolder,
        *,
        device: torch.device,
        progress: PretrainingProgress,
        resident_share: float,
        save_every_s: float,
        stopping: StopRequested,
    ) -> None:
        """Pre-trains one fold and writes its encoder."""
        train, dev = self.trainable(fold.train)[0], self.trainable(fold.dev)[0]
        with memory_needed(device, f"lower --resident-share ({resident_share:g})"):
            source = self._source(np.union1d(train, dev), device, resident_share)
        progress.note(f"fold {fold.name}: {source.describe()}")
        self.start.model.load_state_dict(self.initial)  # every fold starts from the same weights
        model = PretrainingModel(self.start.model, wave=self.request.start != CONV)
        remedy = f"lower --batch-size ({self.config.batch_size}), --max-seconds ({self.config.max_seconds:g}) "
        with memory_needed(device, f"{remedy}or choose --precision bfloat16 ({self.config.precision})"):
            trained = pretrain_fold(
                model,
                source,
                train,
                dev,
                self.config,
                fold=fold.name,
                identity=self.identity(fold),
                checkpoint=folder.state,
                save_every_s=save_every_s,
                progress=progress,
                stopping=stopping,
            )
        folder.write_result(
            self.start.model.cpu(),
            trained,
            self._record(fold, train),
            normalize=self.start.normalize,
            device=str(device),
        )
        progress.end(trained.curves[-1])

    def result(self, fold: Fold, folder: FoldFolder) -> PretrainedFold:
        """Reads the result of a finished fold."""
        cost = folder.read(COST)
        curves = [{name: float(value) for name, value in row.items()} for row in folder.read_curves()]
        return PretrainedFold(
            fold=fold.name,
            train=len(self.trainable(fold.train)[0]),
            curves=curves,
            steps=int(cost["steps"]),
            seconds=float(cost["seconds"]),
            peak_bytes=int(cost["peak_bytes"]),
            encoder=folder.encoder,
        )

    def command(self, folds: Sequence[PretrainedFold]) -> str:
        """Returns the command that makes streams of the pre-trained encoders, next to those of the cache."""
        spec = self.start.stream.spec
        # Without log-mel and CTC targets: they are in the cache already, perhaps with other options.
        options = ["--audio-only", "--no-mel"]
        options += [] if spec.dtype == "float16" or spec.role != "audio" else [f"--dtype {spec.dtype}"]
        limit_s = float(spec.limits.get("max_seconds") or 0)
        options += [f"--max-seconds {limit_s:g}"] if limit_s and limit_s != 60 else []
        options += ["--chunk"] if spec.limits.get("chunk") else []
        encoders = [f"--encoder {quote(f'{_stream_name(fold.fold)}={fold.encoder}')}" for fold in folds]
        return featurize_command(self.cache, " ".join([*encoders, *options]))

    def _split(self) -> Split:
        request = self.request
        return split_cache(
            self.cache,
            streams=[self.start.stream.spec.name],
            labels=request.labels,
            protocol=request.protocol,
            only=request.only,
            own_folds=request.own_folds,
            data_seed=self.config.data_seed,
            allow_missing=True,  # test subsets are not read
            allow_leak=True,  # only the chosen folds are checked, below
            earlier_dev=True,  # dev selects nothing here, and train loses the fewest speakers
        )

    def _leaks(self) -> list[str]:
        """Checks the chosen folds for test speakers that the encoder has seen; returns notes if they are allowed."""
        spec = dataclasses.replace(self.start.stream.spec, name=self.start.name, trained_on=self.start.trained_on)
        corpus, allowed = corpus_of(self.cache), self.request.allow_leak
        return [
            note
            for fold in self.folds
            for note in check_encoders(fold, self.cache.utterances, [spec], corpus, allow_leak=allowed)
        ]

    def _short(self) -> list[str]:
        """Returns notes on utterances without room for a masked span; checks that enough are left."""
        notes = []
        for fold in self.folds:
            enough, short = self.trainable(fold.train)
            if len(enough) < 2:
                raise MmerError(
                    f"fold {fold.name} has {len(enough)} training utterances of at least {self.config.mask_length} "
                    "frames of 20 ms; lower mask_length by --set, or choose another --protocol"
                )
            if len(short):
                names = ", ".join(self.cache.ids[index] for index in short[:FIRST].tolist())
                more = f" and {len(short) - FIRST} more" if len(short) > FIRST else ""
                notes.append(
                    f"fold {fold.name}: {len(short)} training utterances shorter than a masked span of "
                    f"{self.config.mask_length} frames are left out: {names}{more}"
                )
        return notes

    def _source(self, chosen: Indices, device: torch.device, resident_share: float) -> SpeechSource:
        start = self.start
        if self.request.start == CONV:
            name = start.stream.spec.name
            return ConvFeatures(self.cache, name, chosen, device=device, resident_share=resident_share)
        root = self.request.root or Path(str(self.cache.header["corpus"].get("root", "")))
        return Recordings(
            self.cache,
            start.stream,
            root,
            chosen,
            model=start.model.config,
            normalize=start.normalize,
            device=device,
        )

    def _record(self, fold: Fold, train: Indices) -> dict[str, object]:
        return training_record(
            self.cache.utterances,
            train,
            corpus=corpus_of(self.cache),
            fold=fold.name,
            protocol=self.split.protocol,
            what=WHAT[self.request.start],
            source=str(self.start.trained_on.get("source") or self.start.stream.spec.source),
            earlier=self.start.trained_on,
        )

    def _frames(self, subset: Indices) -> Indices:
        """Counts the frames of utterances, int64 ``(n,)``; for recordings from their durations."""
        if self.request.start == CONV:
            lengths: Indices = self.start.stream.lengths[subset]
            return lengths
        durations_s = [self.cache.utterances[index].duration_s or 0.0 for index in subset.tolist()]
        samples = np.maximum(np.floor(np.array(durations_s) * RATE_HZ + 0.5), MIN_SAMPLES).astype(np.int64)
        return (samples - RECEPTIVE_FIELD) // HOP + 1

    def _content(self, index: int) -> str:
        """Returns a digest of the rows of an utterance, or of its recording."""
        stream = self.start.stream
        if self.request.start == CONV:
            return str(int(stream.checksum[index]))
        return bytes(stream.input_digest[index]).hex()


def _chosen(split: Split, names: Sequence[str]) -> list[Fold]:
    """Returns the folds of these names, all if there are none."""
    known = {fold.name: fold for fold in split.folds}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise MmerError(f"protocol {split.protocol} has no fold {unknown[0]}; known: {', '.join(known)}")
    return [fold for name, fold in known.items() if not names or name in names]


def _stream_name(fold: str) -> str:
    """Returns the name of the streams of a fold's encoder."""
    return f"pre-{re.sub(r'[^A-Za-z0-9._-]+', '-', fold)}"


def _is_finished(folder: FoldFolder, progress: PretrainingProgress) -> bool:
    """Checks whether a fold has an undamaged encoder."""
    if not folder.encoder.exists():
        return False
    damage = folder.find_damage()
    if damage:
        progress.note(f"{damage}; the fold is trained again")
    return not damage


def _change(fold: PretrainedFold, name: str, digits: int = 3) -> str:
    """Formats a loss of the first and of the last epoch."""
    if name not in fold.curves[0]:
        return "-"
    return f"{fold.curves[0][name]:.{digits}f} -> {fold.curves[-1][name]:.{digits}f}"

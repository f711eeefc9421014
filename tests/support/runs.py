"""A cache that every head can be trained on, runs over it, and a watcher that keeps what it is told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from click.testing import CliRunner, Result

from cache.joined import AnyCache, open_cache
from cache.layout import StreamPlan, read_layout
from cache.rebuild import build_file
from cache.rows import StoredRows, rows_checksum, to_stored
from cache.stream import StreamSpec
from cache.utterance import Utterance
from cache.writer import CacheWriter, Row, writing_lock
from cli.train import train
from fusion.experiment.experiment import Experiment
from fusion.experiment.fields import configure
from fusion.experiment.plan import RunPlan, plan_run
from fusion.run.cross_validation import cross_validate
from fusion.run.folder import RunFolder
from fusion.run.results import collect_results
from fusion.training.checkpoint import EpochScores
from tests.support.heads import CLASSES, TEXT_LAYER, Sample, head_inputs, samples

COUNT, SESSIONS = 72, 3
CPU = torch.device("cpu")
QUICK = {"epochs": "2", "batch_size": "21", "lr": "0.01"}
SMALL: Mapping[str, Mapping[str, object]] = {  # of the heads that are large by default
    "rescmfa": {"layers": 1, "text_slots": 15, "audio_slots": 30},
    "tab": {"layers": 1, "feedforward": 24},
    "jfm": {"blocks": 1, "extractor_layers": 1},
    "bimodal": {"feedforward": 24, "cpc_steps": 3, "cpc_dim": 16, "cpc_anchors": 8, "cpc_negatives": 16},
}
TWO_FOLDS: Mapping[str, Any] = {"only": {"session": ("1", "2")}}  # where two folds show as much as three
# Role -> stream, how it is stored, and layers.
STREAMS: dict[str, tuple[str, str, str]] = {
    "audio": ("voice", "float16", "last"),
    "codes": ("voice.codes", "uint16", "last"),
    "text": (f"words@{TEXT_LAYER}", "float16", str(TEXT_LAYER)),
    "tokens": ("words.tokens", "int32", "last"),
    "chars": ("ctc.chars", "uint8", "last"),
    "mel": ("logmel80", "float16", "last"),
    "patches": ("vit", "float16", "last"),
}
VIEWS = {"audio.view": ("voice~lsa", "float16", "last")}


def utterances(drawn: Sequence[Sample]) -> list[Utterance]:
    """Two speakers and four dialogues in each session; every dialogue has every class."""
    made = []
    for index, sample in enumerate(drawn):
        session, place = divmod(index, len(drawn) // SESSIONS)
        made.append(
            Utterance(
                id=f"u{index:02}",
                audio=f"u{index:02}.wav",
                text=sample.text,
                label=CLASSES[sample.label],
                speaker=f"{session + 1}{'FM'[place // 4 % 2]}",
                session=str(session + 1),
                dialogue=f"d{session}{place // 6}",
            )
        )
    return made


def write_cache(path: Path, *, failing: Mapping[str, int] | None = None, **changes: Any) -> Path:
    """Writes the cache.

    Args:
        path: of the file.
        failing: stream -> an utterance that it lacks.
        changes: ``roles`` names the roles to write, all by default, and ``without`` streams to leave out; ``views``
            adds one of augmented voices, ``trained_on`` is what the encoder of the role ``trained`` has seen, that of
            voices by default; ``corpus`` and ``utterances`` take the place of the usual ones.
    """
    drawn = samples(COUNT)
    lacking, without = failing or {}, changes.get("without", ())
    plans, rows = [], []
    offered = STREAMS | (VIEWS if changes.get("views") else {})
    roles = changes.get("roles", offered)
    for role, (name, dtype, layers) in offered.items():
        if name in without or role not in roles:
            continue
        trained_on = changes.get("trained_on", {}) if role == changes.get("trained", "audio") else {}
        spec = _spec(role, name, dtype, layers, trained_on=trained_on)
        spec = replace(spec, **changes.get("specs", {}).get(role, {}))
        lengths = np.array([len(one.rows[role]) for one in drawn])
        failures = {lacking[name]: "it is silent"} if name in lacking else {}
        lengths[list(failures)] = 0
        plans.append(StreamPlan(spec=spec, lengths=lengths, failures=failures))
        rows += [row for row in _rows(name, role, dtype) if row.index not in failures]
    header = {"mmer_version": "0", "created": "2026", "corpus": changes.get("corpus", {"name": "toy", "root": "a b"})}
    inputs = head_inputs()
    encoders = {"audio": "voice", "text": "words", "patches": "vit"}
    weights = {name: inputs.weights[role] for role, name in encoders.items() if role in roles}
    with writing_lock(path):
        told = changes.get("utterances") or utterances(drawn)
        build_file(path, header=header, utterances=told, plans=plans, weights=weights)
        with CacheWriter(read_layout(path)) as writer:
            writer.commit(rows)
    return path


def other_corpus(path: Path, names: Mapping[str, str], **changes: Any) -> Path:
    """Writes the features of the trainable cache again as another corpus, with other names and labels."""
    told = [
        replace(held, id=f"x{held.id}", speaker=f"x{held.speaker}", label=names.get(held.label, held.label))
        for held in utterances(samples(COUNT))
    ]
    return write_cache(path, utterances=told, corpus={"name": "mine", "root": ""}, **changes)


def scramble(path: Path, indices: Sequence[int]) -> None:
    """Replaces features, transcripts and labels of some utterances by noise, and leaves all others as they are.

    Checksums are those of the noise, else a run would find the rows damaged.
    """
    cache, random = open_cache(path), np.random.default_rng(5)
    with h5py.File(path, "r+") as file:
        for name, stream in cache.streams.items():
            values = file[f"streams/{name}/values"]
            for index in indices:
                start, end = (int(one) for one in stream.offsets[index : index + 2])
                noise = random.standard_normal((end - start, *stream.spec.shape)) * 3
                values[start:end] = noise if values.dtype.kind == "f" else np.abs(noise).astype(values.dtype)
                checksums = file[f"streams/{name}/checksum"]
                checksums[index] = rows_checksum(StoredRows(values[start:end], None))
        labels = file["utterances/label"][()]
        labels[list(indices)] = random.permutation(labels[list(indices)])
        file["utterances/label"][...] = labels
        for index in indices:
            file["utterances/text"][index] = "noise hate joy tears still"


@dataclass
class Told:
    """A watcher that keeps what it is told."""

    notes: list[str] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)
    started: list[tuple[str, int]] = field(default_factory=list)
    epochs: list[EpochScores] = field(default_factory=list)

    def note(self, note: str) -> None:
        self.notes.append(note)

    def begin(self, folds: Sequence[str], seeds: Sequence[int], models: int) -> None:
        self.begun.append(models)

    def start(self, fold: str, seed: int, epochs: int) -> None:
        self.started.append((fold, seed))

    def epoch(self, scores: EpochScores) -> None:
        self.epochs.append(scores)

    def end(self, best: EpochScores) -> None:
        self.started.append(("end", len(self.epochs)))


def reader_of(path: Path) -> AnyCache:
    """Opens a cache for reading; a file that nothing has written to since is opened once."""
    found = path.stat()
    return _reader(path, found.st_mtime_ns, found.st_ino)


@lru_cache(maxsize=4)
def _reader(path: Path, written_ns: int, inode: int) -> AnyCache:
    return open_cache(path)


def plan(cache: Path, fusion: str, values: Mapping[str, object] | None = None, **asked: Any) -> RunPlan:
    """Plans a quick run of a small head."""
    head, training = configure(fusion, {**QUICK, **SMALL.get(fusion, {}), **(values or {})})
    return plan_run(Experiment(fusion=fusion, head=head, training=training, **asked), reader_of(cache))


def finish(planned: RunPlan, folder: Path, told: Told | None = None) -> dict[str, Any]:
    """Trains what is planned, and gathers the results."""
    run = RunFolder(folder)
    cross_validate(planned, run, device=CPU, progress=told or Told())
    return collect_results(run, planned.cache, planned.identity)


def train_by_command(cache: Path, *options: str) -> Result:
    """Runs the command as a user types it; quick unless options say otherwise."""
    quick = [] if "--epochs" in options else ["--epochs", "2"]
    return CliRunner().invoke(train, ["--cache", str(cache), "--device", "cpu", *quick, *options])


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file that a run leaves and a second run must repeat bit by bit, wherever its cache lies."""
    skipped = {"cost.json", "config.toml", ".lock"}
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in skipped]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def _spec(role: str, name: str, dtype: str, layers: str, *, trained_on: Mapping[str, object]) -> StreamSpec:
    shape, role = head_inputs().shapes[role], role.removesuffix(".view")
    return StreamSpec(name=name, role=role, source=name, layers=layers, shape=shape, dtype=dtype, trained_on=trained_on)


@cache
def _rows(name: str, role: str, dtype: str) -> tuple[Row, ...]:
    """All rows of a stream, which nobody writes to."""
    return tuple(_row(name, index, one, role, dtype) for index, one in enumerate(samples(COUNT)))


def _row(name: str, index: int, sample: Sample, role: str, dtype: str) -> Row:
    values = sample.rows[role].numpy()
    if role == "audio":  # tells half of the class, so that there is something to learn
        values = values + np.eye(values.shape[-1], dtype=np.float32)[sample.label] * 2
    return Row(stream=name, index=index, stored=to_stored(values, dtype), digest=f"{role}{index}".encode().ljust(16))

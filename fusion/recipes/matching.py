"""Match of a run with a published figure: a figure belongs to a run only if fields, streams and head fit.

Streams fit if encoder, layers and dialogue history are those of the figure, and if its encoders were pre-trained as
often (docs/decisions.md#l-13). An encoder is identified by its checkpoint, not by the name that a user gave its stream.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from cache.stream import StreamSpec
from cache.transcripts import AsrReading
from fusion.recipes.published import Figure, Published

# Encoder of a published figure -> its checkpoint, as `StreamSpec.source` records it.
CHECKPOINTS: Mapping[str, str] = {
    "wav2vec2-base": "facebook/wav2vec2-base",
    "wav2vec2-base-960h": "facebook/wav2vec2-base-960h",
    "roberta-base": "FacebookAI/roberta-base",
    "roberta-large": "FacebookAI/roberta-large",
    "bert-base": "google-bert/bert-base-uncased",
    "distilbert-base": "distilbert/distilbert-base-uncased",
    "vit-mel-base": "google/vit-base-patch16-224-in21k",
    "logmel80": "logmel80",  # built-in
    "mfcc39": "mfcc39",
}
NAME = re.compile(r"(?P<encoder>[^@+]+)(?:@(?P<layers>[^+]+))?(?:\+history(?P<history>\d+))?")
LAST = "last"
SECOND_STAGE, HISTORY = "second-stage pre-training", "dialogue history"
# In the record `trained_on` of an encoder that mmer-pretrain has pre-trained again, `trained` ends with this word;
# `source` is the checkpoint that the training started from, `earlier` the record of a training before it.
PRE_TRAINED = "pre-trained"


@dataclass(frozen=True, kw_only=True)
class ReadStream:
    """A stream as far as a published figure depends on it.

    Attributes:
        name: name of the stream in the cache.
        encoder: name of its encoder in `CHECKPOINTS`; its checkpoint if it is not among them.
        layers: hidden states, as requested after ``@``.
        history: number of previous turns that were read with an utterance.
        second_stage: True if the encoder was pre-trained a second time.
        asr: True if it was computed from transcripts by ASR.
    """

    name: str
    encoder: str
    layers: str = LAST
    history: int = 0
    second_stage: bool = False
    asr: bool = False

    @classmethod
    def named(cls, name: str) -> "ReadStream":
        """Reads the name of a stream of a catalog encoder.

        Example:
            >>> ReadStream.named("bert-base+history10").history, ReadStream.named("roberta-large@12").layers
            (10, '12')
        """
        parts = NAME.fullmatch(name)
        if parts is None:
            return cls(name=name, encoder=name)
        layers, history = parts["layers"] or LAST, int(parts["history"] or 0)
        return cls(name=name, encoder=parts["encoder"], layers=layers, history=history)

    @classmethod
    def of(cls, spec: StreamSpec) -> "ReadStream":
        """Reads the specification of a stream of a cache."""
        records = _records(spec.trained_on)
        source = str(next((record["source"] for record in records if record.get("source")), spec.source))
        encoder = spec.encoder.partition("+")[0]
        if CHECKPOINTS.get(encoder) != source:
            encoder = next((known for known, checkpoint in CHECKPOINTS.items() if checkpoint == source), source)
        return cls(
            name=spec.name,
            encoder=encoder,
            layers=spec.layers,
            history=int(spec.preprocessing.get("history") or 0),
            asr=AsrReading.of(spec) is not None,
            second_stage=any(str(record.get("trained", "")).endswith(PRE_TRAINED) for record in records),
        )

    def fits(self, expected: "ReadStream") -> bool:
        """Checks encoder, layers, history and origin of the text; stages of pre-training do not count."""
        return all(getattr(self, name) == getattr(expected, name) for name in ("encoder", "layers", "history", "asr"))


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """The facts of a run that decide which figures belong to it.

    Attributes:
        protocol: name of the protocol, never ``auto``.
        labels: name of the label set.
        frozen: True if no encoder was fine-tuned.
        streams: role -> stream that the run reads.
        corpus: corpus of the run; empty for that of the recipe.
        changed: fields that differ from the recipe, each as ``field=value``.
        only: other differences to the recipe, such as options that leave out utterances.
        promise: name and promise of the protocol on the corpus of the run; empty for those in general.
    """

    protocol: str
    labels: str
    frozen: bool
    streams: Mapping[str, ReadStream]
    corpus: str = ""
    changed: Sequence[str] = ()
    only: Sequence[str] = ()
    promise: str = ""


@dataclass(frozen=True, kw_only=True)
class Match:
    """The figure that a run corresponds to.

    Attributes:
        figure: the figure.
        but: fields of the run that no figure of these streams has, each as ``field=value``.
    """

    figure: Figure
    but: tuple[str, ...] = field(default=())


def match_figure(published: Published, run: RunFacts) -> Match | None:
    """Selects the published variant that a run of the recipe corresponds to.

    Args:
        published: figures of the recipe.
        run: facts of the run.

    Returns:
        The variant of the same head with exactly the changed fields and with fitting streams; without one, the variant
        that differs in the fields that its figure leaves open. None if no variant fits.
    """
    variants = [
        figure
        for figure in published.figures
        if figure.change and not figure.head and streams_fit(published, figure, run.streams)
    ]
    for figure in variants:
        if _texts(figure) == set(run.changed):
            return Match(figure=figure)
    for figure in variants:
        open_fields = {*figure.whatever}
        if open_fields and _without(_texts(figure), open_fields) == _without(run.changed, open_fields):
            return Match(figure=figure, but=tuple(text for text in run.changed if _field(text) in open_fields))
    return None


def match_sum(published: Published, parts: Sequence[RunFacts]) -> Figure | None:
    """Selects the published score fusion that a sum of the logits of runs corresponds to.

    Runs whose streams differ from those of the figure only in the second stage of pre-training match too; `differences`
    reports it.

    Args:
        published: figures of the recipe of the runs.
        parts: facts of the runs that are added up.
    """
    return next((figure for figure in published.figures if figure.parts and _adds_up(published, figure, parts)), None)


def streams_fit(
    published: Published, figure: Figure, streams: Mapping[str, ReadStream], *, any_stage: bool = False
) -> bool:
    """Checks whether the streams of a run are those that a figure was made with.

    Roles that the run does not read do not count.

    Args:
        published: figures of the recipe.
        figure: one of them.
        streams: role -> stream of the run.
        any_stage: accept encoders that were pre-trained more or less often.
    """
    for role, stream in streams.items():
        expected = _expected(published, figure, role)
        if expected and not any(stream.fits(ReadStream.named(name)) for name in expected):
            return False
        if expected and not any_stage and stream.second_stage != (role in figure.second_stage):
            return False
    return True


def differences(published: Published, figure: Figure, streams: Mapping[str, ReadStream]) -> list[str]:
    """Lists the reasons why a figure is not like for like with a run: history, second-stage pre-training.

    A figure with second-stage pre-training differs from every run that has none, whatever modalities the run reads.

    Args:
        published: figures of the recipe.
        figure: one of them.
        streams: role -> stream of the run.
    """
    again = {role for role, stream in streams.items() if stream.second_stage}
    reasons = []
    if any(role not in again for role in figure.second_stage) or (not figure.second_stage and _reads(figure, again)):
        reasons.append(SECOND_STAGE)
    for role, stream in streams.items():
        expected = _expected(published, figure, role)
        if expected and _reads(figure, {role}) and stream.history != ReadStream.named(expected[0]).history:
            reasons.append(HISTORY)
    return reasons


def _records(trained_on: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Returns the records of all trainings of an encoder, the latest first."""
    records: list[Mapping[str, object]] = []
    record: object = trained_on
    while isinstance(record, Mapping) and record:
        records.append(record)
        record = record.get("earlier")
    return records


def _adds_up(published: Published, figure: Figure, parts: Sequence[RunFacts]) -> bool:
    """Checks whether each part of a score fusion is exactly one of the runs."""
    expected = [part for name in figure.parts for part in published.figures if part.what.startswith(name)]
    remaining = list(parts)
    for part in expected:
        fitting = [
            run
            for run in remaining
            if _texts(part) == set(run.changed) and streams_fit(published, part, run.streams, any_stage=True)
        ]
        if not fitting:
            return False
        remaining.remove(fitting[0])
    return not remaining


def _expected(published: Published, figure: Figure, role: str) -> tuple[str, ...]:
    """Returns the streams of a role that a figure may have been made with; empty if the paper has no such role."""
    return (figure.streams[role],) if role in figure.streams else published.streams.get(role, ())


def _reads(figure: Figure, roles: Collection[str]) -> bool:
    """Checks whether a figure is of a system that reads one of these roles."""
    return figure.change.get("modalities") in {None, *roles} and bool(roles)


def _texts(figure: Figure) -> set[str]:
    return {f"{name}={value}" for name, value in figure.change.items()}


def _without(texts: Collection[str], names: Collection[str]) -> set[str]:
    return {text for text in texts if _field(text) not in names}


def _field(text: str) -> str:
    return text.partition("=")[0]

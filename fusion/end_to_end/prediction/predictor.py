"""Predictor: the models of a run with their encoders, from recordings and texts to probabilities."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from cache.errors import MmerError
from cache.rows import StoredRows
from cache.stream import SPEECH, StreamSpec
from featurize.asr.transcriber import Transcribe, Transcriber
from featurize.encoders.base import Waveform
from featurize.inputs.audio import DECODE_THREADS, RecordingError
from featurize.runtime.device import choose_device, default_batch_seconds
from fusion.end_to_end.learning.source import NO_FOLDERS, Folders
from fusion.end_to_end.prediction.encoders import StreamEncoder, load_stream_encoders, stream_id
from fusion.end_to_end.prediction.features import (
    Computed,
    ComputedFeatures,
    Item,
    blank_row,
    compute_rows,
    compute_waveforms,
)
from fusion.end_to_end.prediction.models import Model, RunModels, load_models
from fusion.end_to_end.prediction.recordings import Recording, load_waveform, sound_of
from fusion.end_to_end.prediction.source import find_run
from fusion.end_to_end.prediction.timeline import Cutter, cutter_of
from fusion.training.evaluate import predict_probabilities

BLOCK = 128  # pieces that are predicted together: enough for full batches of a GPU, few enough for memory
WAVE = "waveforms"  # in the identifier of rows that an encoder learned from recordings reads
ARRAY = "array"  # name of a sound in memory

SoundLike: TypeAlias = str | Path | tuple[npt.NDArray[Any], int]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The prediction of a recording, or of a window of it.

    Attributes:
        file: name of the recording.
        start_s: start in seconds; None for the start of the recording.
        end_s: end in seconds; None for the end of the recording.
        text: transcript that was read.
        label: most probable class; empty after an error.
        probabilities: probability of each class; empty after an error.
        error: reason why there is no prediction; empty without an error.
    """

    file: str
    start_s: float | None = None
    end_s: float | None = None
    text: str = ""
    label: str = ""
    probabilities: Mapping[str, float]
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class _Cut:
    """A recording and its pieces, or the reason why it cannot be cut."""

    recording: Recording
    pieces: Sequence[Recording] = ()
    error: str = ""


class PredictionProgress(Protocol):
    """Receives the state of a prediction."""

    def note(self, note: str) -> None:
        """Receives a note."""
        ...

    def start(self, recordings: int) -> None:
        """Receives the number of recordings before the first prediction."""
        ...

    def advance(self, recordings: int) -> None:
        """Receives the number of recordings that were predicted since the last call."""
        ...


class Predictor:
    """The models of a run and the encoders that compute their features.

    Args:
        models: loaded models.
        encoders: loaded encoders of the streams that the models read.
        device: device of models and encoders.
        batch_seconds: seconds of speech of one batch of an encoder; None for a value that suits the device.
        transcribe: transcribes recordings without a text; None to transcribe nothing.

    Example:
        >>> predictor = load_predictor(Path("runs/demo"))  # doctest: +SKIP
        >>> predictor.predict("call.wav", text="where have you been").label  # doctest: +SKIP
        'calm'
    """

    def __init__(
        self,
        models: RunModels,
        encoders: Sequence[StreamEncoder],
        device: torch.device,
        batch_seconds: float | None = None,
        transcribe: Transcribe | None = None,
    ) -> None:
        self.models = models
        self._transcribe = transcribe
        self._encoders = encoders
        self._device = device
        self._batch_seconds = default_batch_seconds(device) if batch_seconds is None else batch_seconds

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.models.classes

    @property
    def source(self) -> str:
        """Text for users that states which models predict."""
        return self.models.source

    @property
    def reads_speech(self) -> bool:
        """True if the models read recordings."""
        return any(spec.consumes == SPEECH for spec in self._specs)

    @property
    def reads_text(self) -> bool:
        """True if the models read transcripts."""
        return any(spec.consumes != SPEECH for spec in self._specs)

    @property
    def accepts_missing(self) -> bool:
        """True if a modality may be missing: the run was trained with modality dropout."""
        rates = [model.head.config.modality_dropout for model in self.models.models]
        return self.reads_speech and self.reads_text and min(rates) > 0

    @property
    def without_text(self) -> str:
        """The reason why the models cannot predict without texts; empty if they can."""
        if not self.reads_text or self.accepts_missing or self._transcribe:
            return ""
        remedy = ", or train it with --modality-dropout to predict from speech alone" if self.reads_speech else ""
        return (
            f"{self.models.run} reads {'speech and ' if self.reads_speech else ''}text, and no text is given; pass "
            f"--text, --texts FILE, --asr MODEL, or a manifest{remedy}"
        )

    def predict(self, source: SoundLike | None, *, text: str | None = None, before: Sequence[str] = ()) -> Prediction:
        """Predicts a recording.

        Args:
            source: file of the recording, or ``(samples, rate)`` with float or integer samples ``(samples,)`` or
                ``(samples, channels)``; None for a run that reads only text.
            text: its transcript.
            before: transcripts of the turns before it, oldest first, for text encoders with a history.

        Raises:
            MmerError: if the recording cannot be predicted.
        """
        (prediction,) = self._checked(_recording(source, text, before), None)
        return prediction

    def timeline(
        self,
        source: SoundLike,
        *,
        window_s: float | None = None,
        hop_s: float | None = None,
        vad: bool = False,
        text: str | None = None,
    ) -> list[Prediction]:
        """Predicts a long recording window by window; the last prediction is that of the whole recording.

        Args:
            source: as for `predict`.
            window_s: length of a window in seconds.
            hop_s: distance of two windows in seconds; the length of a window if None.
            vad: cut at pauses; needs the package silero-vad.
            text: transcript of the recording, which is read with every window.

        Raises:
            MmerError: if a value is invalid or the recording cannot be predicted.
        """
        return self._checked(_recording(source, text, ()), cutter_of(window_s, hop_s, vad=vad))

    def predict_all(
        self, recordings: Iterable[Recording], *, cutter: Cutter | None = None
    ) -> Generator[list[Prediction]]:
        """Predicts recordings; a recording that cannot be predicted gets a prediction with its error.

        Args:
            recordings: recordings, or spans of them.
            cutter: cuts each recording into pieces; None to predict whole recordings.

        Yields:
            The predictions of each recording: those of its pieces if there are several, and then that of the whole,
            which is the mean of its pieces, weighted by their durations.
        """
        with ThreadPoolExecutor(DECODE_THREADS) as threads:
            block: list[_Cut] = []
            for recording in recordings:
                block.append(_cut(recording, cutter))
                if sum(len(cut.pieces) for cut in block) >= BLOCK:
                    yield from self._predict_block(block, threads)
                    block = []
            yield from self._predict_block(block, threads)

    def _checked(self, recording: Recording, cutter: Cutter | None) -> list[Prediction]:
        if recording.text is None and self.without_text:
            raise MmerError(self.without_text)
        (predictions,) = self.predict_all([recording], cutter=cutter)
        if predictions[-1].error:
            raise MmerError(f"{recording.file or 'the text'}: {predictions[-1].error}")
        return predictions

    def _predict_block(self, block: Sequence[_Cut], threads: ThreadPoolExecutor) -> Generator[list[Prediction]]:
        predicted = iter(self._predict_pieces([piece for cut in block for piece in cut.pieces], threads))
        for cut in block:
            found = [next(predicted) for _ in cut.pieces]
            if cut.error:
                yield [_failed(cut.recording, cut.error)]
            else:
                yield found if len(found) == 1 else [*found, self._whole(cut.recording, found)]

    def _predict_pieces(self, pieces: Sequence[Recording], threads: ThreadPoolExecutor) -> list[Prediction]:
        pieces = self._with_texts(pieces, threads)
        items = {
            index: Item(span=span, turn=piece.turn)
            for index, (piece, span) in enumerate(zip(pieces, threads.map(Recording.measured, pieces), strict=True))
        }
        failures = {index: reason for index, item in items.items() if (reason := self._missing(pieces[index], item))}
        computed = self._computed(items, failures, threads)
        possible = [index for index in items if index not in failures]
        means = self._probabilities(computed, len(items), possible)
        names = self.classes
        predictions = []
        for index, piece in enumerate(pieces):
            if index in failures:
                predictions.append(_failed(piece, failures[index]))
                continue
            label = self._label(means[index])
            predictions.append(
                replace(
                    _failed(piece, ""),
                    label=label,
                    probabilities=dict(zip(names, means[index].tolist(), strict=True)),
                )
            )
        return predictions

    def _with_texts(self, pieces: Sequence[Recording], threads: ThreadPoolExecutor) -> list[Recording]:
        """Returns the pieces, with transcripts for those without a text if the models read texts."""
        if self._transcribe is None or not self.reads_text:
            return list(pieces)

        def waveform(piece: Recording) -> Waveform | None:
            span = piece.measured()
            try:
                return None if isinstance(span, str) else load_waveform(span)
            except RecordingError:
                return None  # the reason follows when its features are computed

        silent = [index for index, piece in enumerate(pieces) if piece.text is None and piece.source is not None]
        loaded = dict(zip(silent, threads.map(waveform, [pieces[index] for index in silent]), strict=True))
        heard = {index: samples for index, samples in loaded.items() if samples is not None}
        texts = dict(zip(heard, self._transcribe(list(heard.values())), strict=True))
        return [replace(piece, text=texts.get(index, piece.text)) for index, piece in enumerate(pieces)]

    def _missing(self, piece: Recording, item: Item) -> str:
        """Returns the reason why an item cannot be predicted before anything is computed."""
        if self.reads_speech and isinstance(item.span, str) and not (self.accepts_missing and piece.source is None):
            return item.span
        if self.reads_text and item.turn is None:
            if not self.accepts_missing:
                return "no text for it"
            return "neither a recording nor a text" if piece.source is None else ""
        return ""

    def _computed(
        self, items: Mapping[int, Item], failures: dict[int, str], threads: ThreadPoolExecutor
    ) -> dict[str, dict[int, StoredRows]]:
        """Computes the rows of all streams by their identifiers; adds the items that fail to `failures`."""
        rows: dict[str, dict[int, StoredRows]] = {}

        def keep(computed: Computed, prefix: str = "") -> None:
            rows.update({prefix + stream: held for stream, held in computed.rows.items()})
            failures.update(computed.failures)

        def readable(*, speech: bool) -> dict[int, Item]:
            return {
                index: item
                for index, item in items.items()
                if index not in failures and (not isinstance(item.span, str) if speech else item.turn is not None)
            }

        for encoder in self._encoders:
            chosen = readable(speech=encoder.speech)
            keep(compute_rows(encoder, chosen, threads, batch_seconds=self._batch_seconds))
        for name, normalize in self._waves.items():
            keep(compute_waveforms(readable(speech=True), threads, normalize=normalize), name)
        return rows

    def _probabilities(
        self, rows: Mapping[str, Mapping[int, StoredRows]], total: int, possible: Sequence[int]
    ) -> npt.NDArray[np.float64]:
        """Computes the mean probabilities of the models, float64 ``(total, classes)``; zeros for other items."""
        means = np.zeros((total, len(self.classes)))
        if not possible:
            return means
        indices = np.array(possible, dtype=np.int64)
        for model in self.models.models:
            by_role = {role: [rows[_rows_id(model, role)].get(index) for index in range(total)] for role in model.specs}
            blanks = {role: blank_row(spec, wave=role in model.waves) for role, spec in model.specs.items()}
            source = ComputedFeatures(by_role, blanks, self._device)
            means[indices] += predict_probabilities(
                model.head, source, indices, task=self.models.task.scaled(model.scale)
            )
        means /= len(self.models.models)
        return means

    def _whole(self, recording: Recording, pieces: Sequence[Prediction]) -> Prediction:
        good = [piece for piece in pieces if not piece.error]
        if not good:
            return _failed(recording, pieces[0].error)
        weights = [(piece.end_s or 0.0) - (piece.start_s or 0.0) for piece in good]
        mean = np.average([list(piece.probabilities.values()) for piece in good], axis=0, weights=weights)
        label = self._label(mean)
        probabilities = dict(zip(self.classes, mean.tolist(), strict=True))
        return replace(_failed(recording, ""), label=label, probabilities=probabilities)

    def _label(self, outputs: npt.NDArray[np.float64]) -> str:
        """Returns the class of probabilities ``(classes,)``; empty for values of dimensions."""
        return self.classes[int(outputs.argmax())] if self.models.task.has_classes else ""

    @property
    def _specs(self) -> list[StreamSpec]:
        return [spec for model in self.models.models for spec in model.specs.values()]

    @property
    def _waves(self) -> dict[str, bool]:
        """Identifier of waveforms -> whether they are normalized."""
        return {
            _rows_id(model, role): bool(model.specs[role].preprocessing.get("normalize"))
            for model in self.models.models
            for role in model.waves
        }


def load_predictor(
    run: Path,
    *,
    fold: str = "",
    head: str | None = None,
    encoders: Folders = NO_FOLDERS,
    device: str = "auto",
    batch_seconds: float | None = None,
    asr: str = "",
) -> Predictor:
    """Loads the models of a run and their encoders.

    Args:
        run: run folder, bundle, or ``hf:OWNER/NAME`` for a bundle of a hub.
        fold: name of the only fold whose models predict; empty for the final models, or for the mean of all folds
            without any.
        head: import path ``package.module:Class`` of a head outside the catalog that may be imported.
        encoders: name of an encoder -> folder with its weights, for encoders that did not come from a hub.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        batch_seconds: seconds of speech of one batch of an encoder; None for a value that suits the device.
        asr: hub id or folder of an ASR model for recordings without a text; empty for none.

    Raises:
        MmerError: if a model or an encoder is not available, or its weights are others than those of the run.
    """
    chosen = choose_device(device)
    found = find_run(run)
    models = load_models(found.path, fold=fold, head=head, device=chosen, inside=found.inside)
    if found.words:
        models = replace(models, source=f"{models.source}, of {found.words}")
    specs = {
        stream_id(spec): spec
        for model in models.models
        for role, spec in model.specs.items()
        if role not in model.waves
    }
    names = {spec.encoder.partition("+")[0] for spec in specs.values()}
    bundled = {name: folder for name, folder in models.encoders.items() if name in names}
    loaded = load_stream_encoders(specs.values(), folders={**bundled, **encoders}, device=chosen)
    transcribe = Transcriber(asr, chosen) if asr else None
    return Predictor(models, loaded, chosen, batch_seconds, transcribe)


def _recording(source: SoundLike | None, text: str | None, before: Sequence[str]) -> Recording:
    """Returns what a user passes as a recording."""
    if isinstance(source, tuple):
        samples, rate_hz = source
        return Recording(file=ARRAY, source=sound_of(samples, rate_hz), text=text, before=tuple(before))
    path = None if source is None else Path(source)
    return Recording(file="" if source is None else str(source), source=path, text=text, before=tuple(before))


def _cut(recording: Recording, cutter: Cutter | None) -> _Cut:
    """Cuts a recording into pieces; a recording that is a single piece stays whole."""
    if cutter is None or recording.source is None:
        return _Cut(recording=recording, pieces=[recording])
    span = recording.measured()
    if isinstance(span, str):
        return _Cut(recording=recording, error=span)
    try:
        times = cutter(span)
    except RecordingError as error:
        return _Cut(recording=recording, error=str(error))
    if len(times) == 1:
        return _Cut(recording=recording, pieces=[recording])
    first = recording.start_s or 0.0
    return _Cut(recording=recording, pieces=[recording.piece(first + start, first + end) for start, end in times])


def _failed(recording: Recording, error: str) -> Prediction:
    """Returns a prediction without probabilities."""
    return Prediction(
        file=recording.file,
        start_s=recording.start_s,
        end_s=recording.end_s,
        text=recording.text or "",
        probabilities={},
        error=error,
    )


def _rows_id(model: Model, role: str) -> str:
    """Returns the identifier of the rows that a model reads for a role."""
    spec = model.specs[role]
    if role not in model.waves:
        return stream_id(spec)
    return f"{WAVE}, normalized" if spec.preprocessing.get("normalize") else WAVE

"""Prediction as one function: lists recordings, loads the predictor, writes rows as they are computed."""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cache.errors import MmerError
from fusion.end_to_end.learning.source import NO_FOLDERS, Folders
from fusion.end_to_end.prediction.listing import list_recordings
from fusion.end_to_end.prediction.output import RowFile, key_of
from fusion.end_to_end.prediction.predictor import Prediction, PredictionProgress, Predictor, load_predictor
from fusion.end_to_end.prediction.recordings import Recording
from fusion.end_to_end.prediction.timeline import Cutter, cutter_of


class NoPredictionProgress:
    """Progress that does nothing."""

    def note(self, note: str) -> None:
        """Does nothing."""

    def start(self, recordings: int) -> None:
        """Does nothing."""

    def advance(self, recordings: int) -> None:
        """Does nothing."""


@dataclass(frozen=True, kw_only=True)
class PredictionRequest:
    """Request of a prediction.

    Attributes:
        run: run folder.
        files: files, folders, patterns, manifests, or ``-`` for `lines`.
        lines: paths of recordings, one each, for ``-``.
        text: transcript of the only recording.
        texts: table of transcripts by file name.
        encoding: encoding of manifests and of the table of transcripts; None for UTF-8, or UTF-16 with a byte order
            mark.
        asr: hub id or folder of an ASR model for recordings without a text; empty for none.
        fold: name of the only fold whose models predict; empty for the final models or all folds.
        head: import path of a head outside the catalog that may be imported.
        encoders: name of an encoder -> folder with its weights.
        window_s: length of a window in seconds; None for whole recordings.
        hop_s: distance of two windows in seconds; None for the length of a window.
        vad: cut at pauses.
        resume: file of rows to continue; None for none.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        batch_seconds: seconds of speech of one batch of an encoder; None for a value that suits the device.
        allow_outside: recordings of a manifest may lie outside its folder.
    """

    run: Path
    files: Sequence[str] = ()
    lines: Iterable[str] = ()
    text: str | None = None
    texts: Path | None = None
    encoding: str | None = None
    asr: str = ""
    fold: str = ""
    head: str | None = None
    encoders: Folders = field(default_factory=lambda: NO_FOLDERS)
    window_s: float | None = None
    hop_s: float | None = None
    vad: bool = False
    resume: Path | None = None
    device: str = "auto"
    batch_seconds: float | None = None
    allow_outside: bool = False


@dataclass(frozen=True, kw_only=True)
class PredictionJob:
    """A prediction that can start: everything is loaded and checked.

    Attributes:
        predictor: loaded predictor.
        recordings: recordings to predict, without those that the file of rows already has.
        cutter: cuts each recording into pieces; None to predict whole recordings.
        rows: file of rows; None for none.
        skipped: number of recordings that the file of rows already has.
        asr: ASR model that transcribes recordings without a text; empty for none.
    """

    predictor: Predictor
    recordings: Sequence[Recording]
    cutter: Cutter | None
    rows: RowFile | None
    skipped: int
    asr: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.predictor.classes

    @property
    def notes(self) -> list[str]:
        """The lines to print before the first prediction."""
        silent = sum(recording.text is None for recording in self.recordings) if self.predictor.reads_text else 0
        notes = [self.predictor.source]
        if silent and self.predictor.accepts_missing and not self.asr:
            notes.append(f"{silent} of {len(self.recordings)} recordings have no text: predicted from speech alone")
        if silent and self.asr:
            notes.append(f"{silent} of {len(self.recordings)} recordings have no text: transcribed by {self.asr}")
        if self.rows is not None:
            notes.append(f"{self.rows.path} has {self.skipped} recordings already; {len(self.recordings)} are left")
        return notes

    def run(self, progress: PredictionProgress) -> Generator[list[Prediction]]:
        """Yields the predictions of each recording, after they are written to the file of rows.

        Args:
            progress: receives notes and the number of recordings that are done.
        """
        for note in self.notes:
            progress.note(note)
        progress.start(len(self.recordings))
        for predictions in self.predictor.predict_all(self.recordings, cutter=self.cutter):
            if self.rows is not None:
                self.rows.add(predictions)
            progress.advance(1)
            yield predictions


def prepare_prediction(request: PredictionRequest) -> PredictionJob:
    """Lists the recordings, loads the models and their encoders, and opens the file of rows.

    Raises:
        MmerError: if an argument is invalid, the run cannot predict, or texts are missing that it needs.
    """
    cutter = cutter_of(request.window_s, request.hop_s, vad=request.vad)
    recordings = list_recordings(
        request.files,
        text=request.text,
        texts=request.texts,
        encoding=request.encoding,
        lines=request.lines,
        allow_outside=request.allow_outside,
    )
    predictor = load_predictor(
        request.run,
        fold=request.fold,
        head=request.head,
        encoders=request.encoders,
        device=request.device,
        batch_seconds=request.batch_seconds,
        asr=request.asr,
    )
    if not recordings:
        raise MmerError("nothing to predict: pass files, folders, a manifest, or - for a list on standard input")
    if predictor.without_text and all(recording.text is None for recording in recordings):
        raise MmerError(predictor.without_text)
    rows = None if request.resume is None else RowFile(request.resume, predictor.classes)
    done = set() if rows is None else rows.begin(recordings)
    left = [recording for recording in recordings if key_of(recording) not in done]
    return PredictionJob(
        predictor=predictor,
        recordings=left,
        cutter=cutter,
        rows=rows,
        skipped=len(recordings) - len(left),
        asr=request.asr,
    )


def predict_files(
    request: PredictionRequest, progress: PredictionProgress | None = None
) -> Generator[list[Prediction]]:
    """Predicts recordings, as ``mmer-predict`` does.

    Yields:
        The predictions of each recording, that of the whole last.

    Raises:
        MmerError: as `prepare_prediction` does.
    """
    yield from prepare_prediction(request).run(progress or NoPredictionProgress())

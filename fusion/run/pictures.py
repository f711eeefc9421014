"""Pictures of a run as files: confusion matrix, or rated against predicted values; learning curves."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fusion.evaluation.catalog import task_of
from fusion.evaluation.metrics import confusion
from fusion.evaluation.statistics import Predictions, RatedPredictions, SoftPredictions
from fusion.evaluation.task import LOSS, Score
from fusion.fingerprint import Plain
from fusion.head_config import AUDIO, TEXT
from fusion.run.artifacts import Row
from fusion.run.folder import CONFUSION_PICTURE, CURVES, DEV_SCORES, LOSSES, VALUES, DamagedRun, RunFolder

if TYPE_CHECKING:
    from fusion.pictures.curves import Curve

SHOWN_ROLES = (AUDIO, TEXT, "mel", "patches")  # whose streams the titles of pictures name


def plot_run(
    folder: RunFolder,
    identity: Plain,
    results: Plain,
    predictions: Predictions,
    *,
    subject: str,
    kind: str = "png",
) -> None:
    """Writes the pictures of a run: confusion matrix, or rated and predicted values; learning curves.

    Args:
        folder: folder of the run.
        identity: identity of the run.
        results: its results.
        predictions: test predictions of all folds and seeds.
        subject: title of the pictures.
        kind: format of the files: ``png``, ``svg`` or ``pdf``.

    Raises:
        MmerError: if a picture cannot be written.
    """
    from fusion.pictures.canvas import save  # matplotlib takes a second
    from fusion.pictures.curves import draw_dev_scores, draw_losses

    names = list(identity["labels"])
    if isinstance(predictions, RatedPredictions):
        from fusion.pictures.values import draw_values

        figures = {VALUES: draw_values(predictions.truth, predictions.guess, names, subject)}
    else:
        from fusion.pictures.confusion import draw_confusion

        of_classes = predictions.majority if isinstance(predictions, SoftPredictions) else predictions
        counts = confusion(of_classes.truth, of_classes.guess, len(names))
        figures = {CONFUSION_PICTURE: draw_confusion(counts, names, subject)}
    if curves := read_curves(folder, identity, results["folds"]):
        figures[LOSSES] = draw_losses(curves, subject)
        if any(curve.dev_score for curve in curves):
            figures[DEV_SCORES] = draw_dev_scores(curves, monitor_label(identity), subject)
    for name, figure in figures.items():
        with folder.replacing(f"{name}.{kind}") as path:
            save(figure, path, kind)


def read_curves(folder: RunFolder, identity: Plain, folds: Sequence[Plain]) -> "list[Curve]":
    """Reads the learning curves of all models of a run; models without recorded curves are left out.

    Args:
        folder: folder of the run.
        identity: identity of the run.
        folds: scores of the models, as in ``results.json``.
    """
    from fusion.pictures.curves import Curve

    score = _monitored(identity)
    curves = []
    for scores in folds:
        with suppress(DamagedRun):
            rows = folder.model(str(scores["fold"]), int(scores["seed"])).read_rows(CURVES)
            # without auxiliary losses, which dev does not have
            main = next((name for name in (task_of(identity).loss_name, "total") if rows and name in rows[0]), "")
            curve = Curve(
                name=f"{scores['fold']}, seed {scores['seed']}",
                train_loss=_column(rows, main),
                dev_loss=_column(rows, "dev_loss"),
                dev_score=tuple(score.unit * value for value in _column(rows, f"dev_{score.name}")) if score else (),
                chosen=int(scores["epoch"]),
            )
            curves += [curve] if curve.train_loss else []
    return curves


def monitor_label(identity: Plain) -> str:
    """Returns the title of the score that chose the epochs of a run, with its unit."""
    score = _monitored(identity)
    return "dev loss" if score is None else f"dev {score.title}{' (%)' if score.in_percent else ''}"


def _monitored(identity: Plain) -> Score | None:
    """Returns the score that chose the epochs; None for the loss, and for runs without a training."""
    name = identity.get("training", {}).get("monitor", LOSS)
    return next((score for score in task_of(identity).scores if score.name == name), None)


def _column(rows: Sequence[Row], name: str) -> tuple[float, ...]:
    """Returns a column of curves.csv; empty where a value is missing."""
    try:
        return tuple(float(row[name]) for row in rows)
    except (KeyError, ValueError):
        return ()


def subject_of(results: Plain) -> str:
    """Returns the title of the pictures of a run: corpus, streams, head, protocol in words.

    Example:
        >>> run = {"cache": "cache/demo.h5", "fusion": "audio", "streams": {"audio": "mfcc39"}}
        >>> subject_of({**run, "protocol": "session", "protocol_name": "leave one session out"})
        'demo, mfcc39, audio, leave one session out'
    """
    streams = [name for role, name in results.get("streams", {}).items() if role in SHOWN_ROLES]
    corpus = results.get("corpus") or Path(str(results["cache"])).stem
    protocol = results.get("protocol_name") or results["protocol"]
    return ", ".join([str(corpus), *dict.fromkeys(streams), str(results["fusion"]), str(protocol)])

"""ONNX files of a bundle: one for each model."""

from fusion.end_to_end.learning.model import TunedModel
from fusion.end_to_end.prediction.models import RunModels
from fusion.end_to_end.sharing.bundle import BundleFolder
from fusion.end_to_end.sharing.onnx_head import export_head
from fusion.head import Head

HEAD, FULL = "head", "full"
HEAD_FILE, FULL_FILE = "model.onnx", "full.onnx"


def write_onnx(models: RunModels, target: BundleFolder, *, full: bool) -> list[str]:
    """Writes an ONNX file for each model of a bundle, compared with torch.

    Args:
        models: models of the bundle.
        target: folder of the bundle.
        full: with the encoder in front.

    Returns:
        Notes for the user.

    Raises:
        MmerError: if a model cannot be exported.
    """
    files = []
    for model in models.models:
        path = target.model(model.fold, model.seed).path / HEAD_FILE
        files.append(export_head(bare_head(model.head), path))
    worst = max(file.difference for file in files)
    return [f"{HEAD_FILE} of {len(files)} models: probabilities differ from torch by at most {worst:.1e}"]


def bare_head(head: Head) -> Head:
    """Returns a head without tuned encoders in front of it."""
    return head.head if isinstance(head, TunedModel) else head

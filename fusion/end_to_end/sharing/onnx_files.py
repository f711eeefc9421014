"""ONNX files of a bundle: one for each model, the head alone or with its encoders."""

from fusion.end_to_end.learning.model import TunedModel
from fusion.end_to_end.prediction.models import RunModels
from fusion.end_to_end.sharing.bundle import BundleFolder
from fusion.end_to_end.sharing.onnx_full import export_full
from fusion.end_to_end.sharing.onnx_head import export_head

HEAD, FULL = "head", "full"
HEAD_FILE, FULL_FILE = "model.onnx", "full.onnx"


def write_onnx(models: RunModels, target: BundleFolder, *, full: bool) -> list[str]:
    """Writes an ONNX file for each model of a bundle, compared with torch.

    Args:
        models: models of the bundle.
        target: folder of the bundle.
        full: with the encoders in front.

    Returns:
        Notes for the user.

    Raises:
        MmerError: if a model cannot be exported.
    """
    name, files = FULL_FILE if full else HEAD_FILE, []
    for model in models.models:
        path = target.model(model.fold, model.seed).path / name
        if full:
            files.append(export_full(model, path, models.encoders))
        else:
            head = model.head.head if isinstance(model.head, TunedModel) else model.head
            files.append(export_head(head, path, model.scale))
    worst = max(file.difference for file in files)
    what = "probabilities" if models.task.has_classes else "values"
    return [f"{name} of {len(files)} models: {what} differ from those of torch by at most {worst:.1e}"]

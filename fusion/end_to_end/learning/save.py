"""Tuned encoders in the folder of a model: a checkpoint for each role, and the data that it was trained on.

FOLD-seedS/
    audio/              checkpoint for ``mmer-featurize --encoder NAME=FOLD-seedS/audio``, with ``trained_on.json``
    audio.lora/         adapters in the format of peft, if LoRA adapters learned; ``audio/`` has them merged
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from cache.errors import MmerError
from cache.files import writable
from cache.utterance import Utterance
from fusion.end_to_end.learning.lora import save_adapters
from fusion.end_to_end.learning.model import HEAD_PREFIX, TunedModel
from fusion.end_to_end.learning.source import LoadedEncoder

TRAINED_ON = "trained_on.json"
CHECKPOINT = "model.safetensors"
ADAPTERS = ".lora"  # ending of the folder of adapters


def save_encoders(folder: Path, model: TunedModel, trained_on: Mapping[str, Any]) -> list[str]:
    """Writes the encoders of a trained model; earlier ones are replaced.

    Args:
        folder: folder of the model.
        model: trained model.
        trained_on: data that it was trained on, as plain values.

    Returns:
        Names of the weight files, relative to the folder.

    Raises:
        MmerError: if a file cannot be written.
    """
    names = []
    for role, start in model.starts.items():
        loaded = model.loaded[role]
        with writable(folder):
            if loaded.adapted is not None:
                _replaced(folder / f"{role}{ADAPTERS}", partial(save_adapters, loaded.adapted))
            earlier = {"earlier": dict(start.spec.trained_on)} if start.spec.trained_on else {}
            source = start.spec.trained_on.get("source") or start.spec.source
            record = {**trained_on, "tuned": start.tune.text, "stream": start.stream, "source": source, **earlier}
            _replaced(folder / role, partial(_write, loaded.merged(), record))
        names.append(f"{role}/{CHECKPOINT}")
    return names


def head_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the weights of the head among those of a tuned model, under their names in the head."""
    return {name.removeprefix(HEAD_PREFIX): weights[name] for name in weights if name.startswith(HEAD_PREFIX)}


def training_data(corpus: str, utterances: Sequence[Utterance], fold: str) -> dict[str, Any]:
    """Describes the data that an encoder was trained on, as ``trained_on.json`` holds it.

    Args:
        corpus: name of the corpus.
        utterances: utterances of the training and development subsets; the latter selected the epoch.
        fold: name of the fold.
    """
    return {
        "corpus": corpus,
        "speakers": sorted({utterance.speaker for utterance in utterances} - {""}),
        "dialogues": sorted({utterance.dialogue for utterance in utterances} - {""}),
        "fold": fold,
    }


def _write(loaded: LoadedEncoder, record: Mapping[str, Any], path: Path) -> None:
    loaded.save(path)
    (path / TRAINED_ON).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _replaced(path: Path, write: Callable[[Path], None]) -> None:
    """Writes a folder under another name and renames it."""
    fresh = path.with_name(f"{path.name}.new")
    for old in (fresh, path):
        if old.is_symlink():
            raise MmerError(f"{old} is a link; delete it and repeat the command")
    shutil.rmtree(fresh, ignore_errors=True)
    write(fresh)
    shutil.rmtree(path, ignore_errors=True)
    fresh.rename(path)

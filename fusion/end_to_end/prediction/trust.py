"""Checks of folders that may come from a stranger, before anything in them is loaded."""

import os
import stat
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import AutoModel

from cache.errors import MmerError
from featurize.encoders.huggingface import FAMILIES, open_checkpoint

MOST_ENTRIES = 10_000  # files and folders of a bundle; a run of hundreds of folds has fewer
MOST_TEXT_BYTES = 64 << 20  # of a JSON, CSV or text file; the largest tokenizers have 20 MB
TEXTS = frozenset({".csv", ".json", ".md", ".txt"})
SPARE_WEIGHTS = 1 << 20  # numbers that a checkpoint may lack: a quantizer, or a language-model head that is not read

# What the folder of an encoder may hold: no file that makes transformers read another folder.
ENCODER_FILES = frozenset(
    {
        "added_tokens.json",
        "config.json",
        "generation_config.json",
        "merges.txt",
        "model.safetensors",
        "normalizer.json",
        "preprocessor_config.json",
        "sentencepiece.bpe.model",
        "special_tokens_map.json",
        "spm.model",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "trained_on.json",
        "vocab.json",
        "vocab.txt",
    }
)


def check_bundle(path: Path, inside: Path) -> None:
    """Checks that every entry of a bundle is a file or folder that lies in it, and that no text file is too large.

    Args:
        path: folder of the bundle.
        inside: folder that links may lead to: the bundle, or the folder of its repository in the hub cache.

    Raises:
        MmerError: if an entry is a link that leads elsewhere, a pipe or a device, or there are too many.
    """
    root, count = inside.resolve(), 0
    for folder, folders, files in os.walk(path):
        count += len(folders) + len(files)
        if count > MOST_ENTRIES:
            raise MmerError(f"{path} has more than {MOST_ENTRIES} entries; a bundle of mmer-export has fewer")
        for name in folders:
            if (Path(folder) / name).is_symlink():
                raise MmerError(f"{Path(folder) / name} is a link to a folder; replace it by a copy")
        for name in files:
            _check_file(Path(folder) / name, root)


def check_inside(path: Path, inside: Path) -> None:
    """Checks that a path, its links resolved, lies in a folder.

    Raises:
        MmerError: if it leads elsewhere.
    """
    try:
        lies_inside = path.resolve().is_relative_to(inside.resolve())
    except (OSError, RuntimeError):  # a loop of links
        lies_inside = False
    if not lies_inside:
        raise MmerError(f"{path} leads out of the run folder; replace the link by a copy of the file")


def check_encoder(folder: Path) -> None:
    """Checks the files of an encoder, and that its configuration fits its weights before memory is taken for them.

    Raises:
        MmerError: if a file is not part of an encoder, or the configuration describes another model than the weights.
    """
    for file in sorted(folder.glob("*")):
        if file.name not in ENCODER_FILES:
            raise MmerError(f"{folder} holds {file.name!r}, which is not part of a tuned encoder; remove it")
    weights = folder / "model.safetensors"
    try:
        with safe_open(weights, framework="np") as file:
            shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as error:
        raise MmerError(f"{weights} cannot be read ({error}); copy the encoder again") from error
    stored = sum(_product(shape) for shape in shapes)
    config: Any = open_checkpoint(str(folder)).config
    repeated = max([0, *_counts(config.to_dict())])
    if repeated > max(len(shapes), 1):
        raise MmerError(f"{folder} does not fit its weights ({repeated} layers, {len(shapes)} weights); copy it again")
    try:
        with torch.device("meta"):
            known = FAMILIES.get(config.model_type)
            auto: Any = AutoModel  # builds a family that mmer has no remedies for, without code of its own
            model: Any = auto.from_config(config, trust_remote_code=False) if known is None else known.model(config)
    except (ArithmeticError, LookupError, RuntimeError, StrictDataclassError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise MmerError(f"the configuration of {folder} is invalid ({reason}); copy the encoder again") from error
    described = sum(tensor.numel() for tensor in model.state_dict().values())
    if described > 2 * stored + SPARE_WEIGHTS:
        raise MmerError(
            f"{folder} does not fit its weights ({described} numbers described, {stored} stored); copy it again"
        )


def _check_file(path: Path, root: Path) -> None:
    check_inside(path, root)
    try:
        state = path.stat()
    except OSError as error:
        raise MmerError(f"{path} cannot be read ({error.strerror}); copy the bundle again") from error
    if not stat.S_ISREG(state.st_mode):
        raise MmerError(f"{path} is not a regular file; remove it")
    if path.suffix in TEXTS and state.st_size > MOST_TEXT_BYTES:
        raise MmerError(f"{path} has {state.st_size} bytes, more than {MOST_TEXT_BYTES}; it is not part of a bundle")


def _counts(config: dict[str, Any]) -> list[int]:
    """Returns the numbers of a configuration for which modules are built one by one."""
    named = [value for name, value in config.items() if name.startswith(("num_", "n_")) and name.endswith("layers")]
    lists = [len(value) for value in config.values() if isinstance(value, (list, tuple))]
    return [value for value in named if isinstance(value, int)] + lists


def _product(shape: list[int]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product

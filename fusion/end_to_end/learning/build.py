"""Building of tuned models: loads the encoders of their starts, and adds LoRA adapters if requested."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fusion.end_to_end.learning.lora import with_adapters
from fusion.end_to_end.learning.model import TunedModel, learning_encoder
from fusion.end_to_end.learning.source import NO_FOLDERS, Folders, LoadedEncoder, load_encoder, open_saved
from fusion.end_to_end.learning.start import Start
from fusion.head import Head
from fusion.training.config import TrainConfig


def build_tuned(
    head: Head, starts: Mapping[str, Start], config: TrainConfig, *, folders: Folders = NO_FOLDERS
) -> TunedModel:
    """Combines the pre-trained encoders of a run with its head, on the CPU.

    Args:
        head: built head.
        starts: role -> where the learning of its encoder starts.
        config: training configuration.
        folders: folders of encoders that the user names.

    Raises:
        MmerError: if an encoder is not available or has other weights.
    """
    loaded = {role: load_encoder(role, start.spec, start.weights, folders) for role, start in starts.items()}
    return assemble(head, loaded, starts, config)


def load_tuned(head: Head, folder: Path, starts: Mapping[str, Start]) -> TunedModel:
    """Combines the tuned encoders of a trained model with its head, on the CPU.

    Args:
        head: trained head.
        folder: folder of the model, with a checkpoint for each role.
        starts: role -> where the learning of its encoder started.

    Raises:
        MmerError: if a checkpoint is missing or incomplete.
    """
    loaded = {role: open_saved(role, folder / role) for role in starts}
    return assemble(head, loaded, starts, TrainConfig())


def assemble(
    head: Head, loaded: Mapping[str, LoadedEncoder], starts: Mapping[str, Start], config: TrainConfig
) -> TunedModel:
    """Combines loaded encoders with a head; their models become part of the result.

    Args:
        head: built head.
        loaded: role -> encoder.
        starts: role -> where its learning starts.
        config: training configuration.
    """
    held = {role: _adapted(loaded[role], start, config.seed) for role, start in starts.items()}
    encoders = {role: learning_encoder(start, held[role].base, config) for role, start in starts.items()}
    return TunedModel(head, encoders, held, starts, config)


def _adapted(loaded: LoadedEncoder, start: Start, seed: int) -> LoadedEncoder:
    rank = start.tune.rank
    return replace(loaded, adapted=with_adapters(loaded.base, rank, seed=seed)) if rank else loaded

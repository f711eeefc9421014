"""Result of a pre-training on disk: an encoder folder that `mmer-featurize` reads, and the files next to it.

FOLD/                one folder for each fold, in the run folder
    encoder/             written by ``save_pretrained``, last and at once: config.json, model.safetensors,
                         preprocessor_config.json, trained_on.json (the corpus, speakers and dialogues it has seen)
    pretrain.json        settings and everything else that decides the weights
    curves.csv           losses of every epoch on the training and the development subset
    cost.json            time, peak memory, device, and the digest of the weights
    state.safetensors    checkpoint during training
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from safetensors import SafetensorError, safe_open
from transformers import Wav2Vec2FeatureExtractor

from cache.errors import MmerError
from cache.files import check_unused, writable
from cache.utterance import Utterance
from fusion.arrays import Indices
from fusion.end_to_end.learning.source import LoadedEncoder
from fusion.end_to_end.pretraining.training import PretrainedModel
from fusion.run.folder import COST, CURVES, STATE, DamagedRun, Folder
from fusion.training.checkpoint import EpochScores

ENCODER, SETTINGS, TRAINED_ON = "encoder", "pretrain.json", "trained_on.json"
WEIGHTS = "model.safetensors"
EARLIER = "earlier"  # key of the record of an earlier training
NO_RECORD: Mapping[str, object] = {}


class FoldFolder(Folder):
    """The folder of one pre-trained fold."""

    FILES = (SETTINGS, CURVES, COST, STATE)

    @property
    def encoder(self) -> Path:
        """The folder of the pre-trained encoder."""
        return self.path / ENCODER

    @property
    def state(self) -> Path:
        """The file of the checkpoint."""
        return self.path / STATE

    def begin(self, identity: Mapping[str, Mapping[str, Any]], provenance: Mapping[str, object]) -> None:
        """Writes the identity of the training, or checks that the folder holds the same one.

        Args:
            identity: everything that decides the weights, as plain values by section.
            provenance: other information to keep, which may differ when the training is resumed.

        Raises:
            MmerError: if the folder holds another pre-training or files without one, or cannot be written.
        """
        if not (self.path / SETTINGS).exists():
            if self.encoder.exists():
                raise MmerError(f"{self.encoder} exists, but {self.path} has no {SETTINGS}; choose another --out")
            check_unused(self.path)
            self.write(SETTINGS, {"decides": identity, **provenance})
            return
        held, requested = self.read(SETTINGS).get("decides", {}), json.loads(json.dumps(identity))
        if held == requested:
            return
        differences = [
            f"{section}.{name}: {held.get(section, {}).get(name)} there, {values.get(name)} requested"
            for section, values in requested.items()
            for name in values
            if held.get(section, {}).get(name) != values.get(name)
        ]
        raise MmerError(
            f"{self.path} already holds a different pre-training ({'; '.join(differences[:4]) or 'other settings'}); "
            "choose another --out, or pass --replace to overwrite it"
        )

    def find_damage(self) -> str:
        """Returns why the pre-trained encoder cannot be used; empty if it can."""
        try:
            with safe_open(self.encoder / WEIGHTS, framework="np"):
                pass
            if Folder(self.encoder).digest(WEIGHTS) == self.read(COST)["weights"]:
                return ""
            return f"{self.encoder / WEIGHTS} has changed since it was written"
        except (DamagedRun, OSError, SafetensorError, KeyError, TypeError) as error:
            return str(error)

    def clear(self) -> None:
        """Deletes the pre-training in the folder and no other file."""
        if not (self.path / SETTINGS).exists():
            return
        self.drop_encoder()
        for name in reversed(self.FILES):  # the settings last, in case the process is killed
            self.delete(name)

    def drop_encoder(self) -> None:
        """Deletes the encoder."""
        with writable(self.path):
            for folder in (self.encoder, self._unfinished):
                if folder.exists():
                    shutil.rmtree(folder)

    def write_result(
        self,
        model: Any,
        trained: PretrainedModel,
        record: Mapping[str, object],
        *,
        normalize: bool,
        device: str,
    ) -> None:
        """Writes curves, cost and the encoder; its folder gets its name when it is complete.

        Args:
            model: Hugging Face's model with the weights of the last step.
            trained: result of the training.
            record: content of ``trained_on.json``.
            normalize: the encoder expects zero mean and unit variance per utterance.
            device: device of the training.

        Raises:
            MmerError: if a file cannot be written.
        """
        self.drop_encoder()
        unfinished = Folder(self._unfinished)
        unfinished.make()
        with writable(self.path):
            extractor: Any = Wav2Vec2FeatureExtractor
            LoadedEncoder(whole=model, companion=extractor(do_normalize=normalize)).save(unfinished.path)
        unfinished.write(TRAINED_ON, record)
        self._write_curves(trained.curves)
        cost = {"seconds": round(trained.seconds, 3), "peak_bytes": trained.peak_bytes, "device": device}
        self.write(COST, {"steps": trained.steps, **cost, "weights": unfinished.digest(WEIGHTS)})
        with writable(self.path):
            unfinished.path.rename(self.encoder)

    def read_curves(self) -> list[dict[str, str]]:
        """Reads the losses of every epoch."""
        return self.read_rows(CURVES)

    @property
    def _unfinished(self) -> Path:
        return self.path / f".{ENCODER}.part"

    def _write_curves(self, curves: Sequence[EpochScores]) -> None:
        names, dev = list(curves[0].losses), list(curves[0].dev)
        header = ["epoch", *names, *(f"dev_{name}" for name in dev)]
        rows = [
            [scores.epoch, *(scores.losses[name] for name in names), *(scores.dev[name] for name in dev)]
            for scores in curves
        ]
        self.write_rows(CURVES, header, rows)


def fold_folder(run: Path, fold: str) -> FoldFolder:
    """Returns the folder of one fold in a run folder."""
    return FoldFolder(run / quote(fold, safe=" "))


def training_record(
    utterances: Sequence[Utterance],
    train: Indices,
    *,
    corpus: str,
    fold: str,
    protocol: str,
    what: str,
    source: str = "",
    earlier: Mapping[str, object] = NO_RECORD,
) -> dict[str, object]:
    """Builds the record of the data that an encoder has seen, from which leakage checks are made.

    An utterance without a speaker or dialogue could be of any. The record then names no speakers and no dialogues, and
    the encoder counts as trained on all of them.

    Args:
        utterances: all utterances of the cache.
        train: utterances of the training subset, int64 ``(n,)``.
        corpus: name of the corpus.
        fold: name of the fold.
        protocol: name of the protocol.
        what: part of the encoder that was trained, in words.
        source: checkpoint that it started from; empty if it is not known.
        earlier: record of an earlier training of the same encoder, empty if there is none.
    """
    seen = [utterances[index] for index in train.tolist()]
    known = all(utterance.speaker for utterance in seen)
    return {
        "corpus": corpus,
        "speakers": sorted({utterance.speaker for utterance in seen}) if known else [],
        "dialogues": sorted({utterance.dialogue for utterance in seen} - {""}) if known else [],
        "fold": fold,
        "protocol": protocol,
        "trained": what,
        **({"source": source} if source else {}),
        **({EARLIER: dict(earlier)} if earlier else {}),
    }

"""Sources of speech for pre-training: convolutional features of a cache, or recordings with unchanged digests."""

from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from cache.errors import MmerError
from cache.joined import AnyCache, AnyStream
from featurize.encoders.padding import conv_lengths, pad_waveforms
from featurize.encoders.speech import prepare_waveform
from featurize.extraction.plan import speech_digest
from featurize.extraction.staleness import audio_folder
from featurize.inputs.audio import DECODE_THREADS, MIN_SAMPLES, AudioSpan, RecordingError, Waveform, cut, load, probe
from fusion.arrays import Indices
from fusion.data.features import AHEAD, CachedFeatures
from fusion.end_to_end.pretraining.model import SpeechBatch
from fusion.experiment.featurize_commands import repair_command

AUDIO = "audio"  # role of the convolutional features


class SpeechSource(Protocol):
    """Batches of speech, by positions among all utterances of a cache."""

    @property
    def device(self) -> torch.device:
        """The device of the batches."""
        ...

    def frames(self, indices: Indices) -> Indices:
        """Counts the frames of each utterance, int64 ``(n,)``."""
        ...

    def batches(self, groups: Iterable[Indices]) -> Generator[SpeechBatch]:
        """Yields a batch for each group of utterances."""
        ...

    def describe(self) -> str:
        """Returns a text for the user that states where the speech is."""
        ...


class ConvFeatures:
    """Convolutional features of a cache.

    Args:
        cache: open cache.
        stream: name of the stream of convolutional features.
        chosen: utterances that batches may contain, int64 ``(n,)``.
        device: device of the batches.
        resident_share: share of the device's memory for features that are held there, in [0, 1].
    """

    def __init__(
        self, cache: AnyCache, stream: str, chosen: Indices, *, device: torch.device, resident_share: float
    ) -> None:
        self.device = device
        labels = np.zeros(len(cache), dtype=np.int64)  # a batch of features has labels, which nothing reads here
        self._features = CachedFeatures(
            cache,
            {AUDIO: stream},
            labels,
            device=device,
            chosen=chosen,
            resident_share=resident_share,
            repair=partial(repair_command, cache),
        )

    def frames(self, indices: Indices) -> Indices:
        """Counts the frames of each utterance, int64 ``(n,)``."""
        return self._features.lengths(indices)

    def batches(self, groups: Iterable[Indices]) -> Generator[SpeechBatch]:
        """Yields a batch for each group of utterances."""
        listed = list(groups)
        for indices, batch in zip(listed, self._features.batches(listed), strict=True):
            frames = self.frames(indices).tolist()
            yield SpeechBatch(values=batch.features[AUDIO], lengths=frames, frames=frames)

    def describe(self) -> str:
        """Returns a text for the user that states where the features are."""
        return self._features.describe()


class Recordings:
    """Recordings of the utterances of a cache, decoded when a batch needs them.

    Args:
        cache: open cache.
        stream: a stream of speech whose input digests the recordings must match.
        root: folder of the corpus, or the table of a manifest.
        chosen: utterances that batches may contain, int64 ``(n,)``.
        model: configuration of the model, which determines the frames.
        normalize: zero mean and unit variance per utterance, as the checkpoint's feature extractor does.
        device: device of the batches.

    Raises:
        MmerError: if a recording is missing, cannot be decoded, or differs from the recording that the cache has
            features of; names the first such utterance and their number.
    """

    def __init__(
        self,
        cache: AnyCache,
        stream: AnyStream,
        root: Path,
        chosen: Indices,
        *,
        model: Any,
        normalize: bool,
        device: torch.device,
    ) -> None:
        self.device = device
        self._cache, self._stream, self._root = cache, stream, audio_folder(root)
        self._model, self._normalize = model, normalize
        self._spans: dict[int, AudioSpan] = {}
        self._check(chosen)

    def frames(self, indices: Indices) -> Indices:
        """Counts the frames of each utterance, int64 ``(n,)``."""
        samples = [max(self._spans[index].samples, MIN_SAMPLES) for index in indices.tolist()]
        kernels, strides = self._model.conv_kernel, self._model.conv_stride
        return np.array([conv_lengths(count, kernels, strides)[-1] for count in samples], dtype=np.int64)

    def batches(self, groups: Iterable[Indices]) -> Generator[SpeechBatch]:
        """Yields a batch for each group of utterances; recordings are decoded ahead."""
        waiting: deque[tuple[Indices, list[Future[Waveform]]]] = deque()
        with ThreadPoolExecutor(DECODE_THREADS) as threads:
            for indices in groups:
                waiting.append((indices, [threads.submit(self._waveform, index) for index in indices.tolist()]))
                if len(waiting) > AHEAD:
                    yield self._batch(*waiting.popleft())
            while waiting:
                yield self._batch(*waiting.popleft())

    def describe(self) -> str:
        """Returns a text for the user that states where the recordings are."""
        return f"{len(self._spans)} recordings below {self._root} are read as needed; they are those of the cache"

    def _batch(self, indices: Indices, pending: Sequence[Future[Waveform]]) -> SpeechBatch:
        waveforms = [future.result() for future in pending]
        lengths = [len(waveform) for waveform in waveforms]
        return SpeechBatch(
            values=pad_waveforms(waveforms, self.device), lengths=lengths, frames=self.frames(indices).tolist()
        )

    def _check(self, chosen: Indices) -> None:
        """Probes and decodes every recording once, and compares its digest."""
        with ThreadPoolExecutor(DECODE_THREADS) as threads:
            problems = list(threads.map(self._problem, chosen.tolist()))
        found = [(index, problem) for index, problem in zip(chosen.tolist(), problems, strict=True) if problem]
        if found:
            index, problem = found[0]
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            raise MmerError(
                f"the recording of {self._cache.ids[index]}{more} is not the one of {self._cache.path} ({problem}); "
                "pass the folder of the recordings as --root, or run mmer-featurize again"
            )

    def _problem(self, index: int) -> str:
        """Returns why a recording cannot be used; empty if it can."""
        utterance = self._cache.utterances[index]
        try:
            span = cut(probe(self._root / utterance.audio), utterance.start_s, utterance.end_s)
            digest = load(span).digest
        except RecordingError as error:
            return str(error)
        if speech_digest(digest, span.samples, self._stream.spec) != bytes(self._stream.input_digest[index]):
            return "it has changed since it was featurized"
        self._spans[index] = span
        return ""

    def _waveform(self, index: int) -> Waveform:
        return prepare_waveform(load(self._spans[index]).waveform, normalize=self._normalize)

"""Features of a cache with the recordings themselves in place of one stream, for encoders that learn from waveforms."""

from collections.abc import Collection, Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cache.errors import MmerError
from cache.joined import AnyCache
from featurize.extraction.plan import speech_digest
from featurize.extraction.staleness import audio_folder
from featurize.inputs.audio import DECODE_THREADS, MIN_SAMPLES, RecordingError, cut, load, probe
from fusion.arrays import Indices
from fusion.data.features import CachedFeatures
from fusion.data.views import ViewDraw
from fusion.head import Batch

Waveform = npt.NDArray[np.float32]


class WaveFeatures(CachedFeatures):
    """Batches of any utterances of a cache, with waveforms ``(batch, samples)`` for one role.

    All recordings are decoded once and held in main memory; each must be the one that was featurized.

    Args:
        cache: cache with the streams.
        streams: role -> name of the stream that is read for it.
        labels: class of every utterance of the cache, int64 ``(n,)``; -1 where there is none.
        role: role that gets waveforms.
        root: folder of the corpus; None for the one that the cache records.
        options: further arguments of `CachedFeatures`.

    Raises:
        MmerError: if a recording is missing or has changed.
    """

    def __init__(
        self,
        cache: AnyCache,
        streams: Mapping[str, str],
        labels: npt.NDArray[np.int64],
        *,
        role: str,
        root: Path | None,
        **options: Any,
    ) -> None:
        self.role = role
        reference = streams[role]
        super().__init__(cache, {held: name for held, name in streams.items() if held != role}, labels, **options)
        self._reference = cache.stream(reference)
        committed = CachedFeatures(cache, {role: reference}, labels, chosen=np.empty(0, np.int64)).rows_by_role[role]
        self.rows_by_role = {**self.rows_by_role, role: committed}
        self._waveforms = self._decoded(audio_folder(root or Path(str(cache.header["corpus"].get("root", "")))))

    def describe(self) -> str:
        """Returns a text for the user that states where the rows are."""
        size = sum(waveform.nbytes for waveform in self._waveforms.values()) / 1e6
        return f"{super().describe()}; {size:,.1f} MB of recordings are held in main memory"

    def lengths(self, indices: Indices, roles: Collection[str] | None = None) -> Indices:
        """Counts the rows of each utterance over roles, int64 ``(n,)``; recordings count in frames."""
        read = [role for role in self.rows_by_role if roles is None or role in roles]
        counts = [self.rows_by_role[role][indices] for role in read]
        rows: Indices = np.sum(counts, axis=0, dtype=np.int64) if counts else np.zeros(len(indices), np.int64)
        return rows

    def identity(self, roles: Collection[str]) -> dict[str, str]:
        """Returns the name and the key of the stream that is read for each role."""
        stream = self._reference
        recordings = {self.role: f"recordings of {stream.spec.name} {stream.key}"} if self.role in roles else {}
        return {**super().identity(roles), **recordings}

    def nonfinite_text(self, index: int, role: str) -> str:
        """Returns the error text for features that are not finite."""
        if role != self.role:
            return super().nonfinite_text(index, role)
        return f"the recording of utterance {self.ids[index]} is not finite"

    def rows(self, role: str, index: int) -> npt.NDArray[Any]:
        """Returns the stored rows of one utterance, ``(rows, ...)``, or its waveform ``(samples,)``."""
        if role != self.role:
            return super().rows(role, index)
        return self._waveforms.get(index, np.empty(0, np.float32))

    def batches(
        self, groups: Iterable[Indices], roles: Collection[str] | None = None, draw: ViewDraw | None = None
    ) -> Generator[Batch]:
        """Yields a batch for each group of utterances."""
        for batch in super().batches(groups, roles, draw):
            yield self._with_waveforms(batch) if roles is None or self.role in roles else batch

    def _with_waveforms(self, batch: Batch) -> Batch:
        waveforms = [self.rows(self.role, index) for index in batch.indices.tolist()]
        longest = max(1, *(len(waveform) for waveform in waveforms))
        values, mask = torch.zeros(len(waveforms), longest), torch.zeros(len(waveforms), longest, dtype=torch.bool)
        for row, valid, waveform in zip(values, mask, waveforms, strict=True):
            row[: len(waveform)] = torch.from_numpy(waveform)
            valid[: len(waveform)] = True
        features: dict[str, Tensor] = {**batch.features, self.role: values.to(self.device)}
        return replace(batch, features=features, masks={**batch.masks, self.role: mask.to(self.device)})

    def _decoded(self, folder: Path) -> dict[int, Waveform]:
        """Decodes the recordings of all utterances that may be read, by index."""
        wanted = [index for index in self.chosen.tolist() if self.rows_by_role[self.role][index]]
        with ThreadPoolExecutor(DECODE_THREADS) as threads:
            return dict(zip(wanted, threads.map(lambda index: self._decode(folder, index), wanted), strict=True))

    def _decode(self, folder: Path, index: int) -> Waveform:
        utterance, stream = self.cache.utterances[index], self._reference
        try:
            span = cut(probe(folder / utterance.audio), utterance.start_s, utterance.end_s)
            loaded = load(span)
        except RecordingError as error:
            raise MmerError(f"recording {folder / utterance.audio}: {error}; pass --root with the corpus") from error
        if speech_digest(loaded.digest, span.samples, stream.spec) != bytes(stream.input_digest[index]):
            raise MmerError(
                f"recording {folder / utterance.audio} is not the one that {self.cache.path} was computed from; pass "
                "--root with that corpus, or run mmer-featurize again"
            )
        waveform = loaded.waveform
        if stream.spec.preprocessing.get("normalize"):
            waveform = (waveform - waveform.mean()) / np.sqrt(waveform.var() + 1e-7)
        missing = MIN_SAMPLES - len(waveform)
        return np.pad(waveform, (0, missing)) if missing > 0 else waveform

"""Records of finished runs, by which the same command answers at once while nothing that the run read has changed.

A run that ends complete writes a record next to its cache: ``CACHE.finished``. It has the identity of the cache file
and, for each request, the digest of the identities of all files that the run depended on: those of the corpus, of the
folders of encoders and of mmer itself (`featurize.inputs.file_identity`). The files are looked up before the run reads
them, so that a change during the run never matches. A record that does not match in every respect, or cannot be read,
has no effect: the run checks everything. It names inodes of this machine and times that no program can set, so the
record of another machine never matches, and a copied cache is checked in full.

No torch is needed here, since the point of a record is that nothing large is imported.
"""

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from huggingface_hub import constants

from cache.errors import MmerError
from cache.files import check_regular, replacing
from cache.json_text import parse_json
from cache.layout import read_layout
from cache.utterance import Utterance
from featurize.corpora.catalog import MANIFEST, corpus_spec, default_cache, default_root
from featurize.corpora.imported import is_imported
from featurize.encoders.catalog import BUILT_IN, ENCODERS, parse_requests
from featurize.extraction.report import ExtractionReport, build_report
from featurize.extraction.shard import Shard, all_shards, shard_pattern
from featurize.inputs.ctc_vocabulary import STANDARD, read_ctc_vocabulary
from featurize.inputs.file_identity import FileIdentity, identify, identify_all, identify_tree, identities_digest
from featurize.runtime.versions import installed_version, library_versions

if TYPE_CHECKING:
    from featurize.extraction.job import ExtractionJob, JobOptions

FORMAT = 1
ENDING = ".finished"
MOST_BYTES = 1 << 20  # of a record; those of 16 requests have a few kilobytes
ROOMS = (Path(__file__).parents[1], Path(__file__).parents[2] / "cache")  # sources that decide features and files
MOST_RUNS = 16  # requests whose records one cache keeps
# Fields that decide no value: how a run waits and what it does with rows that are stale or damaged.
UNRECORDED = frozenset({"corpus", "root", "cache", "encoders", "options", "replace", "wait"})
FURTHER_LIBRARIES = ("tokenizers", "safetensors", "h5py")  # that read what a run reads, without a place in a spec


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """All that a user requests of a run, without what decides no value, such as the device.

    Attributes:
        corpus: name in the catalog of corpora.
        root: its folder, or its file for a manifest.
        cache: the file to write.
        encoders: requested encoders; empty for those of the corpus.
        options: all other options, by name.
    """

    corpus: str
    root: Path | None
    cache: Path
    encoders: tuple[str, ...]
    options: Mapping[str, Any]

    @classmethod
    def of_options(
        cls,
        corpus: str,
        *,
        root: Path | None,
        cache: Path | None,
        encoders: Sequence[str],
        **options: "Unpack[JobOptions]",
    ) -> "RunRequest | None":
        """Builds the request of a command; None if its run is checked in full every time.

        Args:
            corpus: name in the catalog of corpora, or a data set of another library.
            root: folder of the corpus, or file of a manifest; None for the built-in corpus.
            cache: the file to write; None for its default.
            encoders: ``[NAME=]SOURCE[@LAYERS]``.
            options: all options of `featurize.extraction.job.job_of`.

        Raises:
            MmerError: if the file of the CTC vocabulary cannot be used.
        """
        if is_imported(corpus) or options.get("replace"):
            return None
        fields: dict[str, Any] = {name: value for name, value in options.items() if name not in UNRECORDED}
        table = fields.pop("ctc_vocab", None)
        if fields.pop("splits", ()):
            return None  # an error of `job_of`
        cache = default_cache(corpus, root, cache)
        return cls(
            corpus=corpus,
            root=default_root(corpus, root, cache),
            cache=cache,
            encoders=tuple(encoders),
            options={**fields, "shard": None, "ctc_vocabulary": read_ctc_vocabulary(table) if table else STANDARD},
        )

    @classmethod
    def of_job(cls, job: "ExtractionJob") -> "RunRequest":
        """Builds the request of a job, equal to that of the options that the job was built from."""
        values = vars(job.options).items()
        encoding = {name: value for name, value in values if name not in {"device", "transcripts"}}
        of_job = {name: value for name, value in vars(job).items() if name not in UNRECORDED}
        return cls(
            corpus=job.corpus, root=job.root, cache=job.cache, encoders=job.encoders, options={**of_job, **encoding}
        )

    def of_shard(self, shard: Shard) -> "RunRequest":
        """Returns the request of one shard, which has a file of its own."""
        return replace(self, cache=shard.path(self.cache), options={**self.options, "shard": shard})

    @property
    def file(self) -> Path:
        """The cache file, not a link to it."""
        return self.cache.resolve() if self.cache.is_symlink() else self.cache

    @property
    def digest(self) -> str:
        """Digest of the request, of the versions of the libraries and of the places that relative paths start from."""
        paths = [self.root and str(self.root), str(self.root and self.root.absolute()), str(self.cache.absolute())]
        versions = {**library_versions(), **{name: installed_version(name) for name in FURTHER_LIBRARIES}}
        values = [FORMAT, self.corpus, paths, self.encoders, self.options, sys.version, versions]
        text = json.dumps(values, sort_keys=True, default=repr)
        return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@dataclass(frozen=True, kw_only=True)
class WatchedFiles:
    """Identities of the files that a run depends on, as they were before the run read them.

    Attributes:
        looked_up_ns: time before the first was looked up, in nanoseconds since the epoch.
        fixed: identities by path: mmer, encoders, and the corpus or its table.
        recordings: identities of the recordings of a manifest, by their paths in the table.
    """

    looked_up_ns: int
    fixed: Mapping[str, FileIdentity]
    recordings: Mapping[str, FileIdentity] = field(default_factory=dict)

    def digest(self, audio: Iterable[str]) -> str:
        """Returns the digest of the files and of these recordings.

        Raises:
            KeyError: if a recording was not looked up.
        """
        chosen = [(f"recording {path}", self.recordings[path]) for path in set(audio)]
        return identities_digest([*self.fixed.items(), *chosen])

    @property
    def racy(self) -> bool:
        """True if a file had changed so shortly before that a later change may leave its times as they are."""
        found = (*self.fixed.values(), *self.recordings.values())
        return any(identity.is_racy(self.looked_up_ns) for identity in found)


def watch_files(request: RunRequest) -> WatchedFiles | None:
    """Looks up the files that a run depends on, before it reads any; None if not all of them are known.

    Transcripts by ASR are not recorded. An encoder of the hub is known in offline mode alone: with a network, each run
    checks for a new revision.
    """
    looked_up_ns = time.time_ns()
    folders = _encoder_folders(request)
    if folders is None or request.options.get("asr") or request.root is None:
        return None
    fixed: dict[str, FileIdentity] = {}
    for room in ROOMS:
        fixed |= identify_tree(room, ending=".py")
    for folder in folders:
        fixed |= identify_tree(folder.absolute())
    root = request.root.absolute()
    if request.corpus == MANIFEST:
        fixed |= identify_all([root])
    else:
        without = os.path.abspath(request.file)  # noqa: PTH100 - the same form as the paths of the walk
        fixed |= identify_tree(root, without=without)
    return WatchedFiles(looked_up_ns=looked_up_ns, fixed=fixed)


def watch_recordings(files: WatchedFiles, request: RunRequest, audio: Iterable[str]) -> WatchedFiles:
    """Looks up the recordings of a manifest too; those of other corpora lie below the root, which is known already.

    Args:
        files: files of the run.
        request: the request of the run.
        audio: paths of recordings, relative to the folder of the manifest.
    """
    if request.corpus != MANIFEST or request.root is None:
        return files
    folder = request.root.absolute().parent
    return replace(files, recordings={path: identify(folder / path) for path in set(audio) if path})


def write_record(
    request: RunRequest,
    files: WatchedFiles,
    utterances: Sequence[Utterance],
    *,
    streams: Sequence[str],
    notes: Sequence[str],
) -> None:
    """Writes the record of a run that has ended complete; the caller holds the lock of the cache.

    Nothing is recorded if a file changed shortly before the run, or the folder cannot be written.

    Args:
        request: the request of the run.
        files: the files that it depended on.
        utterances: utterances of its cache.
        streams: names of the streams of the run.
        notes: notes that the next run would print as well.
    """
    path = request.file
    if files.racy:
        return
    try:
        digest = files.digest(_recordings(request, utterances))
    except KeyError:  # a path that is stored in another form than the table has it
        return
    runs = {name: run for name, run in _read_runs(path).items() if name != request.digest}
    kept = dict(list(runs.items())[-(MOST_RUNS - 1) :])
    run = {"files": digest, "streams": [*streams], "notes": [*notes]}
    content = {"format": FORMAT, "cache": identify(path).text, "runs": {**kept, request.digest: run}}
    with suppress(MmerError), replacing(record_path(path), shared=False) as fresh:
        fresh.write_text(json.dumps(content))


def finished_report(request: RunRequest | None, shards: int | None = None) -> ExtractionReport | None:
    """Builds the report of a run that has nothing to do; None if that is not certain, and the run must check it.

    Args:
        request: the request of the run; None for a run without a record.
        shards: number of shards of the corpus; None for one file.
    """
    if request is None:
        return None
    started = time.monotonic()
    requests = [request] if shards is None else [request.of_shard(shard) for shard in all_shards(shards)]
    recorded = [_read_runs(each.file).get(each.digest) for each in requests]
    if None in recorded:
        return None
    files = watch_files(request)
    if files is None:
        return None
    for each, run in zip(requests, recorded, strict=True):
        audio = _recordings(each, read_layout(each.file).utterances if each.corpus == MANIFEST else ())
        if run is None or run["files"] != watch_recordings(files, each, audio).digest(audio):
            return None
    runs = [run for run in recorded if run is not None]
    streams = list(dict.fromkeys(name for run in runs for name in run["streams"]))
    notes = list(dict.fromkeys(note for run in runs for note in run["notes"]))
    path = request.cache if shards is None else shard_pattern(request.cache, shards)
    return build_report(path, streams, notes=notes, seconds=time.monotonic() - started)


def record_path(path: Path) -> Path:
    """Returns the file of the records of a cache."""
    return path.with_name(f"{path.name}{ENDING}")


def _encoder_folders(request: RunRequest) -> list[Path] | None:
    """Lists the folders that the encoders of a run are read from; None for one of the hub that may change."""
    folders = []
    for encoder in parse_requests(request.encoders or corpus_spec(request.corpus).encoders):
        location = encoder.location
        if encoder.source in ENCODERS and ENCODERS[encoder.source].source == BUILT_IN:
            continue
        if Path(location).is_dir():
            folders.append(Path(location))
        elif constants.HF_HUB_OFFLINE:
            folders.append(Path(constants.HF_HUB_CACHE) / f"models--{location.replace('/', '--')}")
        else:
            return None
    return folders


def _recordings(request: RunRequest, utterances: Sequence[Utterance]) -> list[str]:
    """Lists the recordings of a manifest that the cache has; none for a corpus whose folder is known as a whole."""
    if request.corpus != MANIFEST:
        return []
    return [utterance.audio for utterance in utterances if utterance.audio]


def _read_runs(path: Path) -> dict[str, Any]:
    """Reads the records of the runs over a cache, by the digest of the request; none if the cache has changed."""
    record = record_path(path)
    try:
        check_regular(record)
        with record.open("rb") as file:
            content = parse_json(file.read(MOST_BYTES).decode())
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict) or content.get("format") != FORMAT or content.get("cache") != identify(path).text:
        return {}
    runs = content.get("runs")
    return {name: run for name, run in runs.items() if _is_run(run)} if isinstance(runs, dict) else {}


def _is_run(run: object) -> bool:
    if not isinstance(run, dict) or not isinstance(run.get("files"), str):
        return False
    lists = [run.get("streams"), run.get("notes")]
    return all(isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in lists)

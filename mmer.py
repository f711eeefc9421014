"""The Python door: one import for caches, featurization, training, grids and own heads.

Names are imported when they are used, so ``import mmer`` needs neither torch nor h5py. Nothing is printed; a `progress`
object is notified of what a command would show as a bar.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Unpack

    from cache.joined import AnyCache, open_cache
    from featurize.extraction.job import JobOptions
    from featurize.extraction.progress import ExtractionProgress
    from featurize.extraction.report import ExtractionReport
    from featurize.runtime.cluster import Cluster
    from fusion.end_to_end.prediction.predictor import Prediction, PredictionProgress, Predictor
    from fusion.end_to_end.sharing.export import ExportReport
    from fusion.experiment.request import ExperimentRequest
    from fusion.grid.engine.local import GridProgress
    from fusion.grid.run import GridRun
    from fusion.head import Batch, Head, HeadOutput
    from fusion.head_config import HeadConfig, HeadInputs
    from fusion.run.compare import RunComparison
    from fusion.run.cross_validation import TrainingProgress
    from fusion.run.train import TrainedRun

__all__ = [
    "Batch",
    "Head",
    "HeadConfig",
    "HeadInputs",
    "HeadOutput",
    "compare",
    "export",
    "featurize",
    "grid",
    "load",
    "open_cache",
    "predict",
    "train",
]
IMPORTED_FROM = {
    "Batch": "fusion.head",
    "Head": "fusion.head",
    "HeadConfig": "fusion.head_config",
    "HeadInputs": "fusion.head_config",
    "HeadOutput": "fusion.head",
    "open_cache": "cache.joined",
}
DASK = "dask"


def featurize(
    corpus: str,
    *,
    root: str | Path | None = None,
    cache: str | Path | None = None,
    encoders: Sequence[str] = (),
    device: str = "auto",
    workers: int = 0,
    scheduler: str = "",
    shards: int | None = None,
    progress: "ExtractionProgress | None" = None,
    **options: "Unpack[JobOptions]",
) -> "ExtractionReport":
    """Computes the encoder features of a corpus that its cache lacks, as ``mmer-featurize`` does.

    Args:
        corpus: a name of ``mmer-featurize --list-corpora``, such as ``demo``, ``iemocap`` or ``manifest``.
        root: folder of the corpus, or file of a manifest; not needed for ``demo``.
        cache: file to write; ``cache/CORPUS.h5`` by default.
        encoders: ``[NAME=]SOURCE[@LAYERS]``, a catalog name, hub id or folder each; those of the corpus by default.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        workers: number of processes of this machine that encode; 0 for this process.
        scheduler: address of a dask cluster that encodes, such as ``tcp://10.0.0.1:8786``.
        shards: number of shares of the corpus that get a cache file each; None for one file.
        progress: notified of notes, encoders and utterances.
        options: `audio_only`, `views`, `mel`, `codes`, `dtype`, `precision`, `batch_seconds`, `max_seconds`, `chunk`,
            `limit` and the other options of ``mmer-featurize`` by their names.

    Returns:
        Path of the cache, its streams, and the utterances that failed with their reasons.

    Raises:
        MmerError: one line on what stopped the run; everything committed stays, and the same call resumes.
        ValueError: if both workers and a scheduler are given, or the cache is a pattern of files.
    """
    from featurize.extraction.corpus import featurize_corpus
    from featurize.extraction.job import job_of
    from featurize.runtime.device import choose_device

    pool = None
    if workers or scheduler:
        from featurize.runtime.cluster import Workers

        pool = Workers(count=workers, scheduler=scheduler, device=device)
    job = job_of(
        corpus,
        root=Path(root) if root else None,
        cache=Path(cache) if cache else None,
        encoders=encoders,
        device=choose_device("cpu" if pool else device),  # with workers, this process only plans
        **options,
    )
    return featurize_corpus(job, workers=pool, shards=shards, progress=progress)


def train(
    cache: "str | Path | AnyCache",
    *,
    fusion: str = "",
    recipe: str = "",
    fields: Mapping[str, object] | None = None,
    streams: Mapping[str, str] | None = None,
    labels: str | None = None,
    target: str = "",
    protocol: str | None = None,
    folds: str | Path | None = None,
    only: Mapping[str, str | Sequence[str]] | None = None,
    seeds: Sequence[int] = (0,),
    allow_missing: bool = False,
    allow_leak: bool = False,
    label_encoder: str = "",
    tune: Mapping[str, str | int] | None = None,
    encoders: Mapping[str, str | Path] | None = None,
    root: str | Path | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    resident_share: float = 0.5,
    replace: bool = False,
    tensorboard: bool = False,
    track: str = "",
    final: bool = False,
    test_caches: "Sequence[str | Path | AnyCache]" = (),
    test_labels: str | None = None,
    progress: "TrainingProgress | None" = None,
    **changes: object,
) -> "TrainedRun":
    """Trains and scores a head on every fold of a protocol, as ``mmer-train`` does.

    The first Ctrl-C or SIGTERM ends the training after the current batch, with its state written; the same call
    resumes it. A finished run is read, not trained again.

    Args:
        cache: an open cache, or the path or pattern of its files.
        fusion: name of the head; needed unless a recipe names it.
        recipe: settings of a paper, see ``mmer-train --list-recipes``.
        fields: fields of head or training by name; needed only for a name that is an argument here.
        streams: role -> stream, where the cache has several for a role.
        labels: name of a label set, or ``happy=hap+exc,sad=sad``; that of the recipe or the corpus by default.
        target: rated dimensions to predict instead of classes, such as ``valence,activation``.
        protocol: how folds are made; that of the recipe or the corpus by default.
        folds: table with the columns id,fold or id,fold,subset, or ``emobox:DIR``, instead of a protocol.
        only: column -> value or values of the utterances that take part, such as ``{"style": "improvised"}``.
        seeds: random seeds of the models; each is trained on every fold.
        allow_missing: score the test utterances that have features where some have none.
        allow_leak: accept encoders that have seen test speakers.
        label_encoder: text encoder that reads the words of each class for label embeddings; ``off`` for cached vectors
            of the words; by default that of the text stream, if it is available.
        tune: role -> layers of its encoder that learn: ``all``, a number of top ones, ``wave`` or ``lora:RANK``; those
            of the recipe by default.
        encoders: name of an encoder that learns -> folder with its weights, if it did not come from a hub.
        root: folder of the corpus, if an encoder learns from the recordings.
        out: run folder; by default one below ``runs/`` that is named after the cache, the head and the settings.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        resident_share: share of the device's memory that features may take, in [0, 1].
        replace: delete another run in the folder first.
        tensorboard: also write the curves for TensorBoard into the run folder.
        track: also log the curves to this tracker, ``trackio``; empty for none.
        final: then train a model for each seed on all utterances, for the median best epoch of the folds; it is not
            scored, and ``load(run, fold="final")`` loads it.
        test_caches: caches of other corpora, open or as paths; every model is scored on them too.
        test_labels: label set of the other corpora, or scales of their ratings such as ``valence=1:7``.
        progress: notified of notes, models and epochs.
        changes: fields of head or training, such as ``epochs=20`` or ``lr=1e-3``; see ``mmer-train --list-fields``.

    Raises:
        KeyboardInterrupt: after Ctrl-C or SIGTERM.
        MmerError: if a head, field, stream or value is unknown, the folder holds another run, or the training fails.

    Example:
        >>> run = train("cache/demo.h5", fusion="rescmfa", epochs=20)  # doctest: +SKIP
        >>> ua = run.mean["ua"]  # doctest: +SKIP
    """
    from featurize.runtime.device import choose_device
    from fusion.run.train import train_run
    from fusion.training.interrupt import deferred_interrupts

    request = _request(
        fusion=fusion,
        recipe=recipe,
        fields=fields,
        changes=changes,
        streams=streams,
        labels=labels,
        target=target,
        protocol=protocol,
        folds=folds,
        only=only,
        seeds=seeds,
        allow_missing=allow_missing,
        allow_leak=allow_leak,
        label_encoder=label_encoder,
        tune=tune,
        encoders=encoders,
        root=root,
    )
    opened, path = _opened(cache)
    with deferred_interrupts() as stopping:
        return train_run(
            request.experiment(opened),
            opened,
            out=Path(out) if out else None,
            named_after=path,
            device=choose_device(device),
            progress=progress,
            resident_share=resident_share,
            replace=replace,
            tensorboard=tensorboard,
            track=track,
            final=final,
            stopping=stopping,
            test_caches=[_opened(other)[0] for other in test_caches],
            test_labels=test_labels,
        )


def grid(
    cache: "str | Path | AnyCache",
    *,
    fusion: str = "",
    recipe: str = "",
    grid: Mapping[str, object] | Sequence[str] = (),
    ablate: Sequence[Mapping[str, object] | str] = (),
    search: str = "grid",
    search_seed: int = 0,
    report_all_tests: bool = False,
    keep_winner: bool = False,
    fields: Mapping[str, object] | None = None,
    streams: Mapping[str, str] | None = None,
    labels: str | None = None,
    target: str = "",
    protocol: str | None = None,
    folds: str | Path | None = None,
    only: Mapping[str, str | Sequence[str]] | None = None,
    seeds: Sequence[int] = (0,),
    allow_missing: bool = False,
    allow_leak: bool = False,
    label_encoder: str = "",
    tune: Mapping[str, str | int] | None = None,
    encoders: Mapping[str, str | Path] | None = None,
    root: str | Path | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    engine: str = "auto",
    scheduler: str = "",
    resident_share: float = 0.5,
    progress: "GridProgress | None" = None,
    **changes: object,
) -> "GridRun":
    """Trains every combination of fields on every fold and selects one for each fold on dev, as ``mmer-grid`` does.

    Models are kept in a journal: the same call resumes, and a further value on an axis trains only what is new.

    Args:
        cache: an open cache, or the path or pattern of its files.
        fusion: name of the head; needed unless a recipe names it.
        recipe: settings of a paper, see ``mmer-train --list-recipes``.
        grid: axes to cross: field -> list of values, or a range such as ``"log:1e-5..1e-2"`` for a random search.
        ablate: changes of each combination, one at a time: field -> value each, or ``"published"`` for the recipe's.
        search: ``grid`` for all combinations, ``random:N`` or ``tpe:N`` for some.
        search_seed: random seed of the search.
        report_all_tests: score the test subsets of all combinations, for ablation tables.
        keep_winner: also write the combination with the best mean dev score as a run folder, `GridRun.kept`.
        fields: fields of head or training by name; needed only for a name that is an argument here.
        streams: role -> stream, where the cache has several for a role.
        labels: name of a label set, or ``happy=hap+exc,sad=sad``; that of the recipe or the corpus by default.
        target: rated dimensions to predict instead of classes, such as ``valence,activation``.
        protocol: how folds are made; that of the recipe or the corpus by default.
        folds: table with the columns id,fold or id,fold,subset, or ``emobox:DIR``, instead of a protocol.
        only: column -> value or values of the utterances that take part.
        seeds: random seeds of the models; each combination is trained with each.
        allow_missing: score the test utterances that have features where some have none.
        allow_leak: accept encoders that have seen test speakers.
        label_encoder: text encoder that reads the words of each class for label embeddings; ``off`` for cached vectors
            of the words; by default that of the text stream, if it is available.
        tune: role -> layers of its encoder that learn: ``all``, a number of top ones, ``wave`` or ``lora:RANK``; those
            of the recipe by default.
        encoders: name of an encoder that learns -> folder with its weights, if it did not come from a hub.
        root: folder of the corpus, if an encoder learns from the recordings.
        out: folder of the journal; by default one below ``runs/`` that is named after the cache and the head.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        engine: ``auto``, ``fused`` or ``shared``: how models share the device.
        scheduler: address of a dask cluster that trains the models instead.
        resident_share: share of the device's memory that features may take, in [0, 1].
        progress: notified of notes, models and epochs.
        changes: fields of head or training that all combinations have, such as ``epochs=20``.

    Raises:
        MmerError: if a head, field, stream or value is unknown, or no combination can be trained.

    Example:
        >>> found = grid("cache/demo.h5", fusion="rescmfa", grid={"lr": [1e-3, 3e-3]})  # doctest: +SKIP
        >>> winner, ua = found.winner, found.nested["ua"]  # doctest: +SKIP
    """
    from featurize.runtime.device import choose_device
    from fusion.grid.run import run_grid
    from fusion.grid.space import GridRequest, grid_space, parse_search

    base = _request(
        fusion=fusion,
        recipe=recipe,
        fields=fields,
        changes=changes,
        streams=streams,
        labels=labels,
        target=target,
        protocol=protocol,
        folds=folds,
        only=only,
        seeds=seeds,
        allow_missing=allow_missing,
        allow_leak=allow_leak,
        label_encoder=label_encoder,
        tune=tune,
        encoders=encoders,
        root=root,
    )
    opened, path = _opened(cache)
    request = GridRequest(
        base=base,
        space=grid_space(base, grid=grid, ablate=ablate, cache=opened),
        search=parse_search(search),
        search_seed=search_seed,
        report_all_tests=report_all_tests,
        given={"grid": grid, "ablate": ablate},
    )
    chosen = choose_device(device)
    with _cluster(scheduler, device) as cluster:
        return run_grid(
            request,
            opened,
            out=Path(out) if out else None,
            named_after=path,
            device=chosen,
            engine=DASK if scheduler else engine,
            cluster=cluster,
            progress=progress,
            keep=keep_winner,
            resident_share=resident_share,
        )


def compare(runs: Sequence[str | Path], *, cache: str | Path | None = None) -> "RunComparison":
    """Compares finished runs with the first of them over the same test utterances, as ``mmer-compare`` does.

    Args:
        runs: two or more run folders, such as `TrainedRun.folder`.
        cache: path or pattern of the cache with the speakers of the utterances; that of the first run by default.

    Raises:
        MmerError: if a run is not finished, or the runs have other label sets or test utterances.

    Example:
        >>> found = compare(["runs/audio", "runs/text"])  # doctest: +SKIP
        >>> p = found.pairs[0].difference.p["ua"]  # doctest: +SKIP
    """
    from fusion.run.compare import compare_runs

    return compare_runs([Path(run) for run in runs], cache=Path(cache) if cache else None)


@overload
def load(run: str | Path, *, fold: str, seed: int = 0, head: str | None = None) -> "Head": ...


@overload
def load(
    run: str | Path,
    *,
    head: str | None = None,
    encoders: Mapping[str, str | Path] | None = None,
    asr: str = "",
    device: str = "auto",
) -> "Predictor": ...


def load(
    run: str | Path,
    *,
    fold: str | None = None,
    seed: int = 0,
    head: str | None = None,
    encoders: Mapping[str, str | Path] | None = None,
    asr: str = "",
    device: str = "auto",
) -> "Head | Predictor":
    """Loads a run for prediction; with a fold, only the trained head of that model, in eval mode, on the CPU.

    Args:
        run: run folder, such as `TrainedRun.folder`.
        fold: name of the fold of the head; ``final`` for the model of all utterances; None for a predictor, which has
            the final models, or those of all folds without any, and their encoders.
        seed: random seed of the head; a predictor has the models of all seeds.
        head: import path ``package.module:Class`` of a head outside the catalog that may be imported.
        encoders: name of an encoder -> folder with its weights, for encoders that did not come from a hub.
        asr: hub id or folder of an ASR model with which a predictor transcribes recordings without a text.
        device: device of a predictor: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        MmerError: if there is no such model, its files are damaged, or an encoder is not available.

    Example:
        >>> predictor = load("runs/demo-rescmfa-wav2vec2-tiny+roberta-tiny-c68a5223")  # doctest: +SKIP
        >>> predictor.predict("call.wav", text="where have you been").label  # doctest: +SKIP
        'calm'
    """
    if fold is not None:
        from fusion.run.folder import RunFolder
        from fusion.run.load import load_model

        return load_model(RunFolder(Path(run)), fold, seed, head)
    from fusion.end_to_end.prediction.predictor import load_predictor

    return load_predictor(Path(run), head=head, encoders=_folders(encoders), asr=asr, device=device)


def predict(
    run: str | Path,
    files: str | Path | Sequence[str | Path],
    *,
    text: str | None = None,
    texts: str | Path | None = None,
    encoding: str | None = None,
    asr: str = "",
    fold: str = "",
    head: str | None = None,
    encoders: Mapping[str, str | Path] | None = None,
    window_s: float | None = None,
    hop_s: float | None = None,
    vad: bool = False,
    resume: str | Path | None = None,
    device: str = "auto",
    batch_seconds: float | None = None,
    allow_outside: bool = False,
    progress: "PredictionProgress | None" = None,
) -> "list[Prediction]":
    """Predicts recordings with the models of a run, as ``mmer-predict`` does.

    Args:
        run: run folder, such as `TrainedRun.folder`.
        files: files, folders, patterns or manifests.
        text: transcript of the only recording.
        texts: table of transcripts by file name, CSV or JSON lines with ``file`` and ``text``.
        encoding: encoding of manifests and of the table of transcripts; None for UTF-8, or UTF-16 with a byte order
            mark.
        asr: hub id or folder of an ASR model for recordings without a text.
        fold: name of the only fold whose models predict; empty for the final models, or for all folds without any.
        head: import path ``package.module:Class`` of a head outside the catalog that may be imported.
        encoders: name of an encoder -> folder with its weights, for encoders that did not come from a hub.
        window_s: length of the windows of a time line in seconds; None for whole recordings.
        hop_s: distance of two windows in seconds; the length of a window if None.
        vad: cut at pauses; needs the package silero-vad.
        resume: file of rows, .csv or .jsonl, that is written and continued; its recordings are not predicted again.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        batch_seconds: seconds of speech of one batch of an encoder; None for a value that suits the device.
        allow_outside: recordings of a manifest may lie outside its folder.
        progress: notified of notes and recordings.

    Returns:
        The predictions in the order of the recordings; those of windows before that of their recording. A recording
        that cannot be predicted has an `error`.

    Raises:
        MmerError: if an argument is invalid, the run cannot predict, or texts are missing that it needs.

    Example:
        >>> run = "runs/demo-rescmfa-wav2vec2-tiny+roberta-tiny-c68a5223"
        >>> rows = predict(run, "calls", texts="texts.csv")  # doctest: +SKIP
    """
    from fusion.end_to_end.prediction.run import PredictionRequest, predict_files

    request = PredictionRequest(
        run=Path(run),
        files=[str(file) for file in ([files] if isinstance(files, (str, Path)) else files)],
        text=text,
        texts=Path(texts) if texts else None,
        encoding=encoding,
        asr=asr,
        fold=fold,
        head=head,
        encoders=_folders(encoders),
        window_s=window_s,
        hop_s=hop_s,
        vad=vad,
        resume=Path(resume) if resume else None,
        device=device,
        batch_seconds=batch_seconds,
        allow_outside=allow_outside,
    )
    return [prediction for predictions in predict_files(request, progress) for prediction in predictions]


def export(
    run: str | Path,
    out: str | Path | None = None,
    *,
    onnx: str = "",
    push: str = "",
    private: bool = False,
    license: str = "",
    language: str = "",
    head: str | None = None,
    encoders: Mapping[str, str | Path] | None = None,
) -> "ExportReport":
    """Writes the bundle of a run, all that a prediction on another machine needs, as ``mmer-export`` does.

    Args:
        run: run folder, such as `TrainedRun.folder`; a bundle can be put on a hub as it is.
        out: folder of the bundle; None to write none, if it goes to a hub.
        onnx: ``head`` for each head as an ONNX file, ``full`` with its encoder in front; empty for none.
        push: repository of the Hugging Face hub, ``OWNER/NAME``; empty for none.
        private: create the repository as a private one.
        license: identifier of the licence of the models, such as ``mit``; empty for none.
        language: code of the language of the speech, such as ``en``; empty for that of a known corpus.
        head: import path ``package.module:Class`` of a head outside the catalog that may be imported.
        encoders: name of an encoder -> folder with its weights, which become part of the bundle.

    Returns:
        Folder, address and size of the bundle.

    Raises:
        MmerError: if the run is not finished or damaged, an encoder is not available, a model cannot be ONNX, the
            folder holds something else, or the hub refuses.

    Example:
        >>> report = export("runs/demo-rescmfa-wav2vec2-tiny+roberta-tiny-c68a5223", "demo-emotions")  # doctest: +SKIP
    """
    from fusion.end_to_end.sharing.export import ExportRequest, export_run

    request = ExportRequest(
        run=Path(run),
        out=Path(out) if out else None,
        onnx=onnx,
        push=push,
        private=private,
        license=license,
        language=language,
        head=head,
        encoders=_folders(encoders),
    )
    return export_run(request)


if not TYPE_CHECKING:  # type checkers read the imports above, and report names that are not among them

    def __getattr__(name: str) -> object:
        """Imports a name of the package when it is used for the first time."""
        if name not in IMPORTED_FROM:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(IMPORTED_FROM[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """Returns the public names, whether or not they are imported yet."""
    return __all__


def _folders(encoders: Mapping[str, str | Path] | None) -> dict[str, Path]:
    return {name: Path(folder) for name, folder in (encoders or {}).items()}


def _request(
    *,
    fields: Mapping[str, object] | None,
    changes: Mapping[str, object],
    streams: Mapping[str, str] | None,
    only: Mapping[str, str | Sequence[str]] | None,
    seeds: Sequence[int],
    fusion: str,
    recipe: str,
    labels: str | None,
    target: str,
    protocol: str | None,
    folds: str | Path | None,
    allow_missing: bool,
    allow_leak: bool,
    label_encoder: str,
    tune: Mapping[str, str | int] | None,
    encoders: Mapping[str, str | Path] | None,
    root: str | Path | None,
) -> "ExperimentRequest":
    from fusion.end_to_end.label_encoder import LabelEncoders
    from fusion.experiment.fields import united
    from fusion.experiment.request import ExperimentRequest
    from fusion.protocols.own_folds import read_own_folds
    from fusion.protocols.split import parse_filters

    texts = {name: value if isinstance(value, str) else "+".join(value) for name, value in (only or {}).items()}
    return ExperimentRequest(
        fusion=fusion,
        recipe=recipe,
        fields=united(fields or {}, changes),
        streams=dict(streams or {}),
        labels=labels,
        target=target,
        protocol=protocol,
        own_folds=None if folds is None else read_own_folds(str(folds)),
        only=parse_filters(texts),
        seeds=tuple(seeds),
        allow_missing=allow_missing,
        allow_leak=allow_leak,
        label_encoders=LabelEncoders(requested=label_encoder),
        tune=tuple(f"{role}={depth}" for role, depth in (tune or {}).items()),
        encoders={name: Path(folder) for name, folder in (encoders or {}).items()},
        root=None if root is None else Path(root),
    )


def _opened(cache: "str | Path | AnyCache") -> "tuple[AnyCache, Path]":
    """Returns an open cache and the path that default folders are named after."""
    if isinstance(cache, (str, Path)):
        from cache.joined import open_cache

        return open_cache(cache), Path(cache)
    return cache, cache.path


def _cluster(scheduler: str, device: str) -> "AbstractContextManager[Cluster | None]":
    if not scheduler:
        return nullcontext()
    from featurize.runtime.cluster import Workers, cluster_of

    return cluster_of(Workers(scheduler=scheduler, device=device))

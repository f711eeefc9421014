"""Export as one function: writes a bundle with its model card, adds ONNX files, and puts it on a hub if requested."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from cache.errors import MmerError
from fusion.end_to_end.learning.source import NO_FOLDERS, Folders
from fusion.end_to_end.prediction.source import is_bundle, open_bundle
from fusion.end_to_end.sharing.bundle import README, new_bundle, run_results, write_bundle
from fusion.end_to_end.sharing.card import CardFacts, model_card
from fusion.end_to_end.sharing.onnx_files import FULL, HEAD, write_onnx
from fusion.end_to_end.sharing.push import check_repository, push_bundle
from fusion.run.folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """Request of an export.

    Attributes:
        run: run folder; a bundle can be put on a hub as it is.
        out: folder of the bundle; None to write none, if it goes to a hub.
        push: repository of a hub, ``OWNER/NAME``; empty for none.
        private: create the repository as a private one.
        onnx: ``head`` for the head as ONNX, ``full`` with its encoder in front; empty for none.
        license: identifier of the licence of the models, such as ``mit``; empty for none.
        language: code of the language of the speech, such as ``en``; empty for that of a known corpus.
        head: import path of a head outside the catalog that may be imported.
        encoders: name of an encoder -> folder with its weights, which becomes part of the bundle.
    """

    run: Path
    out: Path | None = None
    push: str = ""
    private: bool = False
    onnx: str = ""
    license: str = ""
    language: str = ""
    head: str | None = None
    encoders: Folders = field(default_factory=lambda: NO_FOLDERS)


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """Result of an export.

    Attributes:
        out: folder of the bundle; None if it was written for a hub only.
        url: address of the repository; empty without one.
        size_bytes: size of all files of the bundle.
        notes: remarks, one line each.
    """

    out: Path | None
    url: str
    size_bytes: int
    notes: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """Text for users: the folder and the address."""
        return " and ".join(filter(None, (str(self.out or ""), self.url)))


def export_run(request: ExportRequest) -> ExportReport:
    """Writes the bundle of a run and puts it on a hub, as ``mmer-export`` does.

    Args:
        request: what to share.

    Raises:
        MmerError: if the run is not finished or damaged, an encoder is not available, a head cannot be ONNX, the
            folder holds something else, or the hub refuses.
    """
    if request.out is None and not request.push:
        raise MmerError("nothing to do: pass a folder for the bundle, or --push OWNER/NAME")
    if request.onnx not in {"", HEAD, FULL}:
        raise MmerError(f"--onnx must be {HEAD} or {FULL}, got {request.onnx!r}")
    if request.push:
        check_repository(request.push)
    if is_bundle(request.run):
        return _push_as_it_is(request)
    if request.out is not None:
        report = _written(request, request.out)
        return replace(report, url=_pushed(request, request.out))
    with TemporaryDirectory() as folder:
        report = _written(request, Path(folder) / "bundle")
        return replace(report, out=None, url=_pushed(request, Path(folder) / "bundle"))


def _written(request: ExportRequest, out: Path) -> ExportReport:
    """Writes the bundle."""
    if request.out is not None and out.resolve().is_relative_to(request.run.resolve()):
        raise MmerError(f"{out} lies in the run folder; choose a folder outside of it")
    if not request.run.is_dir():
        raise MmerError(f"{request.run} is not a run folder; expected the folder that mmer-train printed")
    run = RunFolder(request.run)
    results = run_results(run)
    with new_bundle(out) as target:
        models = write_bundle(run, target, head=request.head, encoders=request.encoders)
        notes = [models.source]
        if request.onnx:
            notes += write_onnx(models, target, full=request.onnx == FULL)
        facts = CardFacts(
            name=request.push or out.name,
            record=target.record,
            results=results,
            models=models,
            license=request.license,
            language=request.language,
        )
        target.write_text(README, model_card(facts))
    size_bytes = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    return ExportReport(out=out, url="", size_bytes=size_bytes, notes=tuple(notes))


def _pushed(request: ExportRequest, bundle: Path) -> str:
    return push_bundle(bundle, request.push, private=request.private) if request.push else ""


def _push_as_it_is(request: ExportRequest) -> ExportReport:
    """Uploads a bundle to a hub without changing it."""
    changes = [name for name in ("out", "onnx", "license", "language", "encoders") if getattr(request, name)]
    if changes:
        raise MmerError(f"{request.run} is a bundle, which is put on a hub as it is; export the run for other options")
    open_bundle(request.run, request.run)
    size_bytes = sum(file.stat().st_size for file in request.run.rglob("*") if file.is_file())
    return ExportReport(out=request.run, url=_pushed(request, request.run), size_bytes=size_bytes)

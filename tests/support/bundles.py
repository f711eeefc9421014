"""Bundles of small runs, and hub caches that hold them."""

import os
from hashlib import sha256
from pathlib import Path

from fusion.end_to_end.sharing.export import ExportRequest, export_run

REVISION = "0123456789abcdef0123456789abcdef01234567"


def bundle_of(run: Path, out: Path, **options: object) -> Path:
    """Exports a run."""
    export_run(ExportRequest(run=run, out=out, **options))  # type: ignore[arg-type]
    return out


def hub_cache_with(bundle: Path, hub: Path, name: str, revision: str = REVISION) -> Path:
    """Lays a bundle out as a snapshot of the hub cache, whose files are links to blobs."""
    repository = hub / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / revision
    for file in sorted(path for path in bundle.rglob("*") if path.is_file()):
        blob = repository / "blobs" / sha256(file.read_bytes()).hexdigest()
        link = snapshot / file.relative_to(bundle)
        for folder in (blob.parent, link.parent, repository / "refs"):
            folder.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(file.read_bytes())
        link.symlink_to(os.path.relpath(blob, link.parent))
    (repository / "refs" / "main").write_text(revision)
    return snapshot

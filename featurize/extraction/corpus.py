"""Featurization as one call: a corpus into one cache or one per shard, in this process or on workers."""

from functools import partial
from typing import TYPE_CHECKING

from featurize.extraction.job import ExtractionJob
from featurize.extraction.progress import ExtractionProgress, SilentProgress
from featurize.extraction.report import ExtractionReport
from featurize.extraction.run import run_job, run_shards

if TYPE_CHECKING:
    from featurize.runtime.cluster import Workers


def featurize_corpus(
    job: ExtractionJob,
    *,
    workers: "Workers | None" = None,
    shards: int | None = None,
    progress: ExtractionProgress | None = None,
) -> ExtractionReport:
    """Computes the features of a corpus that the cache lacks.

    Args:
        job: corpus, encoders and cache.
        workers: processes or a cluster that encode; None for this process.
        shards: number of shards of the corpus, each with a cache file of its own; None for one file.
        progress: receives notes, encoders and numbers of utterances.

    Raises:
        MmerError: if something stops the run; everything committed stays.
    """
    progress = progress or SilentProgress()
    if workers is None:
        return run_shards(job, shards, progress) if shards else run_job(job, progress)
    # Imported here: dask takes a second to import, and most runs do not need it.
    from featurize.extraction.distributed import extract_on, run_shards_on
    from featurize.runtime.cluster import cluster_of

    with cluster_of(workers) as cluster:
        progress.note(cluster.notes)
        if shards:
            return run_shards_on(cluster, job, shards, progress)
        return run_job(job, progress, partial(extract_on, cluster))

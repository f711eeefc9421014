import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from cache.errors import MmerError
from featurize.encoders.catalog import parse_requests
from featurize.encoders.load import Encoders, load_encoders
from featurize.encoders.options import EncodingOptions
from tests.support.checkpoints import WEIGHTS, altered, same, speech_digest_of

REVISION = "0123456789abcdef0123456789abcdef01234567"


def cached_on_the_hub(home: Path, repository: str, folder: Path) -> None:
    """Writes a checkpoint in the layout of the hub's local cache: blobs, and links to them from a snapshot."""
    cached = home / "hub" / f"models--{repository.replace('/', '--')}"
    snapshot = cached / "snapshots" / REVISION
    for directory in (cached / "refs", cached / "blobs", snapshot):
        directory.mkdir(parents=True)
    (cached / "refs" / "main").write_text(REVISION)
    for number, file in enumerate(sorted(folder.iterdir())):
        blob = cached / "blobs" / f"{number:040x}"
        shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(Path("..", "..", "blobs", blob.name))


@pytest.fixture(scope="module")
def hub_answers(wav2vec2: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results of loading by hub id with a cache of the hub and no network."""
    home = tmp_path_factory.mktemp("home")
    cached_on_the_hub(home, "acme/wav2vec2-mini", wav2vec2)
    part = altered(wav2vec2, home / "part", same)
    (part / WEIGHTS).unlink()
    cached_on_the_hub(home, "acme/part", part)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        (encoder,) = loaded("acme/wav2vec2-mini").speech
        lines = {}
        for name in ("acme/nothing", "hubert-base", "acme/part"):
            with pytest.raises(MmerError) as refused:
                loaded(name)
            lines[name] = str(refused.value)
    specs = [(spec.name, spec.source, spec.revision, spec.weights) for spec in encoder.specs]
    return {"specs": specs, "lines": lines}


def loaded(source: str) -> Encoders:
    return load_encoders(parse_requests([source]), EncodingOptions(device=torch.device("cpu")))


def test_a_hub_id_loads_from_the_cache_of_the_hub_and_records_the_revision(
    wav2vec2: Path, hub_answers: dict[str, Any]
) -> None:
    digest = speech_digest_of(wav2vec2)
    name, source, revision, weights = hub_answers["specs"][0]
    assert (name, source, revision, weights) == ("wav2vec2-mini", "acme/wav2vec2-mini", REVISION, digest)
    assert hub_answers["specs"][1][:3] == ("wav2vec2-mini.codes", "acme/wav2vec2-mini", REVISION)


@pytest.mark.parametrize(
    ("requested", "repository"),
    [("acme/nothing",) * 2, ("acme/part",) * 2, ("hubert-base", "facebook/hubert-base-ls960")],
)
def test_a_hub_id_that_is_not_at_hand_gives_one_line_that_says_how_to_fetch_it(
    hub_answers: dict[str, Any], requested: str, repository: str
) -> None:
    line = hub_answers["lines"][requested]
    assert line.startswith(f"{repository} is neither in the hub cache nor reachable; ")
    assert f"`hf download {repository}`" in line
    assert "\n" not in line

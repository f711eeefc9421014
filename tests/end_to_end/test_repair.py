"""The command that an error on damaged rows prints computes exactly these rows again."""

import os
import shlex
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cache.audit import verify
from cache.errors import DamagedRows
from cache.layout import read_layout
from cache.store import FeatureCache
from cli.extract import featurize
from fusion.data.features import CachedFeatures
from fusion.experiment.featurize_commands import repair_command
from tests.support.voices import contents, write_voices

OPTIONS = ["--dtype", "int8", "--max-seconds", "30", "--event-tags", "keep", "--max-tokens", "40"]
DAMAGED = ("wav2vec2-tiny@2", "wav2vec2-tiny.codes", "roberta-tiny.tokens", "ctc.chars", "logmel80")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete cache whose options are not the defaults."""
    manifest = write_voices(tmp_path_factory.mktemp("repair"), "abc")
    encoders = ["--encoder", "wav2vec2-tiny@2", "--encoder", "roberta-tiny"]
    cache = manifest.with_name("corpus.h5")
    result = CliRunner().invoke(
        featurize, ["manifest", "--root", str(manifest), "--cache", str(cache), *encoders, *OPTIONS]
    )
    assert result.exit_code == 0, result.output
    return cache


@pytest.mark.parametrize("name", DAMAGED)
def test_the_printed_command_repairs_the_rows_and_changes_no_others(built: Path, name: str) -> None:
    whole = contents(built)
    layout = read_layout(built)
    region = layout.streams[name].regions["values"]
    with built.open("r+b") as file:
        file.seek(region.offset + int(layout.streams[name].offsets[1]) * region.row_bytes)
        held = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([held[0] ^ 1]))
    cache = FeatureCache(built)
    with pytest.raises(DamagedRows, match=r"utterance b in .*; compute them again with mmer-featurize") as caught:
        CachedFeatures(cache, {"audio": name}, np.zeros(3, int), repair=lambda name: repair_command(cache, name))
    command = str(caught.value).partition("compute them again with ")[2]
    result = CliRunner().invoke(featurize, shlex.split(command)[1:])
    assert result.exit_code == 0, result.output
    assert verify(FeatureCache(built)) == []
    assert contents(built) == whole


def test_a_cache_of_the_first_utterances_stays_one(tmp_path: Path) -> None:
    manifest = write_voices(tmp_path, "abcd")
    cache = tmp_path / "corpus.h5"
    given = ["manifest", "--root", str(manifest), "--cache", str(cache), "--encoder", "wav2vec2-tiny@2"]
    for limit, wanted in (("2", " --limit 2 "), ("9", "")):
        assert CliRunner().invoke(featurize, [*given, "--audio-only", "--limit", limit]).exit_code == 0
        command = repair_command(FeatureCache(cache), "wav2vec2-tiny@2")
        assert (wanted in command) if wanted else ("--limit" not in command)
        held = FeatureCache(cache).ids
        assert CliRunner().invoke(featurize, shlex.split(command)[1:]).exit_code == 0
        assert FeatureCache(cache).ids == held

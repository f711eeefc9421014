"""Commands that messages print: each is pasted as it stands, and works."""

import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cache.errors import MmerError
from cache.joined import open_cache
from cache.store import FeatureCache
from cli.extract import featurize
from cli.maintain import cache as cache_command
from cli.train import train
from fusion.experiment.featurize_commands import featurize_command_for_role
from tests.support.commands import stopped
from tests.support.voices import write_voices

COMMANDS: Mapping[str, click.Command] = {
    "mmer-featurize": featurize,
    "mmer-cache": cache_command,
    "mmer-train": train,
}
SOUND = ["--encoder", "wav2vec2-tiny", "--audio-only", "--no-mel", "--no-codes"]
TEXT = {"roberta-tiny", "roberta-tiny.tokens", "ctc.chars"}


def pasted(text: str) -> None:
    """Runs the command in a text as a shell would; the tiny encoders stand for those that would be downloaded."""
    start = text.index("mmer-")
    line = re.split(
        r"[,;`](?: |$)",
        text[start:].replace("roberta-base", "roberta-tiny").replace(" --encoder", " --no-mel --encoder", 1),
    )[0]
    for part in line.split(" && "):
        name, *arguments = shlex.split(part)
        result = CliRunner().invoke(COMMANDS[name], arguments)
        assert result.exit_code == 0, (part, result.output)


def made(table: Path, cache: Path, *options: str) -> Path:
    arguments = ["manifest", "--root", str(table), "--cache", str(cache), *SOUND, *options]
    result = CliRunner().invoke(featurize, arguments)
    assert result.exit_code == 0, result.output
    return cache


@pytest.fixture
def voices(tmp_path: Path) -> Path:
    """A manifest in a folder with a space and brackets in its name, next to another table."""
    table = write_voices(tmp_path / "my [1] corpus's", "afghij")
    (table.parent / "other.csv").write_text("id,text\nz,hi\n")
    return table


def test_a_stream_that_training_lacks_is_added_by_the_printed_command(voices: Path, tmp_path: Path) -> None:
    path = made(voices, tmp_path / "the cache.h5")
    line = stopped(CliRunner().invoke(train, ["--fusion", "text", "--cache", str(path), "--device", "cpu"]))
    pasted(line)
    assert FeatureCache(path).streams.keys() >= TEXT


def test_a_corpus_is_read_as_it_was(voices: Path, tmp_path: Path) -> None:
    content = voices.read_text().replace("a.wav", str(tmp_path / "elsewhere.wav")).replace("this is", "déjà")
    shutil.copy(voices.parent / "a.wav", tmp_path / "elsewhere.wav")
    voices.write_bytes(content.encode("cp1252"))
    path = made(voices, tmp_path / "a.h5", "--encoding", "cp1252", "--allow-outside")
    pasted(featurize_command_for_role(open_cache(path), "text"))
    assert FeatureCache(path).utterances[0].text == "déjà a"


@pytest.mark.parametrize("pattern", ["v-*.h5", "v-1-of-2.h5"])
def test_shards_are_completed_together_or_alone(voices: Path, tmp_path: Path, pattern: str) -> None:
    made(voices, tmp_path / "v.h5", "--shards", "2")
    pasted(featurize_command_for_role(open_cache(tmp_path / pattern), "text"))
    complete = [FeatureCache(file).streams.keys() >= TEXT for file in sorted(tmp_path.glob("v-*.h5"))]
    assert complete == [True, pattern == "v-*.h5"]
    assert not (tmp_path / "v.h5").exists()


def test_other_files_of_a_pattern_are_merged_first(voices: Path, tmp_path: Path) -> None:
    made(voices, tmp_path / "v.h5", "--shards", "2")
    for number, file in enumerate(sorted(tmp_path.glob("v-*.h5"))):
        file.rename(tmp_path / f"part {number}.h5")
    pasted(featurize_command_for_role(open_cache(tmp_path / "part *.h5"), "text"))
    assert FeatureCache(tmp_path / "joined-1.h5").streams.keys() >= TEXT
    assert len(FeatureCache(tmp_path / "joined-1.h5")) == 6


def test_a_corpus_that_has_moved_is_asked_for_instead(voices: Path, tmp_path: Path) -> None:
    path = made(voices, tmp_path / "a.h5")
    voices.parent.rename(tmp_path / "moved")
    text = featurize_command_for_role(open_cache(path), "text")
    assert "recorded as" in text
    assert "which is not here" in text
    assert "mmer-featurize manifest" not in text


def test_a_misspelt_stream_is_no_encoder(voices: Path, tmp_path: Path) -> None:
    path = made(voices, tmp_path / "a.h5")
    arguments = ["--fusion", "audio", "--cache", str(path), "--device", "cpu", "--audio"]
    line = stopped(CliRunner().invoke(train, [*arguments, "wav2vec-tiny"]))
    assert "wav2vec2-tiny" in line
    assert "mmer-featurize" not in line
    pasted(stopped(CliRunner().invoke(train, [*arguments, "wav2vec2-tiny@1"])).partition("add it with ")[2])
    assert "wav2vec2-tiny@1" in FeatureCache(path).streams


def test_failures_are_listed_by_the_printed_command(voices: Path, tmp_path: Path) -> None:
    for name in "abcdefgh":
        voices.write_text(voices.read_text() + f"x{name},none.wav,hi,sad,s,1\n")
    arguments = ["manifest", "--root", str(voices), "--cache", str(tmp_path / "the cache.h5"), *SOUND]
    output = CliRunner().invoke(featurize, arguments).stdout
    pasted(output)


def test_common_utterances_and_missing_streams_are_mended_by_the_printed_commands(
    voices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one = made(voices, tmp_path / "a 1.h5")
    shutil.copy(one, tmp_path / "a 2.h5")
    with pytest.raises(MmerError, match="is also in") as twice:
        open_cache(tmp_path / "a *.h5")
    pasted(str(twice.value))
    assert len(FeatureCache(tmp_path / "merged.h5")) == 6
    other = write_voices(tmp_path / "others", "xyz")
    two = made(other, tmp_path / "b 2.h5", "--encoder", "mfcc39")
    shutil.copy(one, tmp_path / "b 1.h5")
    with pytest.raises(MmerError, match="has no stream mfcc39") as lacking:
        open_cache(tmp_path / "b *.h5")
    pasted(str(lacking.value).partition("or run ")[2])
    assert "mfcc39" not in FeatureCache(two).streams
    assert len(open_cache(tmp_path / "b *.h5")) == 9

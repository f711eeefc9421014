import os
import socket
import unicodedata
from pathlib import Path

import pytest

from featurize.inputs.audio import RecordingError, probe
from featurize.inputs.unreadable import FOREIGN, foreign_kind, missing
from tests.support.sounds import noise, written


def reason(path: Path) -> str:
    with pytest.raises(RecordingError) as raised:
        probe(path)
    return str(raised.value)


def test_a_missing_recording_names_the_path_that_was_tried(tmp_path: Path) -> None:
    assert reason(tmp_path / "calls" / "a.wav") == f"missing: not found (tried {tmp_path}/calls/a.wav)"
    long = tmp_path / ("folder" * 30) / "a.wav"
    assert missing(long).endswith("folder/a.wav)")
    assert len(missing(long)) < 150


@pytest.mark.parametrize(
    ("there", "tried", "hint"),
    [
        ("calls/a.wav", r"calls\a.wav", r"write / for \, then it is found"),
        ("calls/a.wav", r"other\a.wav", r"it holds \: write / between folders"),
        ("calls/A.WAV", "calls/a.wav", "A.WAV is there, in another letter case"),
        ("Calls/a.wav", "calls/a.wav", "Calls is there, in another letter case"),
        ("calls/a.flac", "calls/a.wav", "a.flac is there"),
        ("calls/a .wav", "calls/a.wav", "a .wav is there"),
        ("calls/b.wav", "calls/a.wav", ""),
    ],
)
def test_a_missing_recording_hints_at_a_file_of_nearly_its_name(
    tmp_path: Path, there: str, tried: str, hint: str
) -> None:
    (tmp_path / there).parent.mkdir()
    written(tmp_path / there, noise(400), format="WAV")
    assert reason(tmp_path / tried) == f"missing: not found{'; ' + hint if hint else ''} (tried {tmp_path / tried})"


def test_another_unicode_normalization_is_hinted_at(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "zoë.wav") for form in ("NFC", "NFD"))
    written(tmp_path / decomposed, noise(400))
    assert "a file of that name in another Unicode normalization is there" in reason(tmp_path / composed)


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.wav").symlink_to(tmp_path / "gone.wav")
    assert "it is a link to nothing" in reason(tmp_path / "a.wav")


def test_what_is_no_file_is_refused_without_being_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(tmp_path)  # the name of a socket is short
        listener.bind("socket")
        assert reason(tmp_path / "pipe") == "not a file: a named pipe"
        assert reason(tmp_path / "socket") == "not a file: a socket"
        assert reason(Path("/dev/zero")) == "not a file: a device"
        assert reason(tmp_path) == "not a file: a folder"


@pytest.mark.parametrize("name", ["a\0b.wav", "a" * 300])
def test_an_impossible_name_fails_in_one_line(name: str) -> None:
    assert reason(Path(name)).startswith(("missing: ", "cannot be read: "))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a Git LFS pointer, not the recording"),
        (b"<!DOCTYPE html>\n<html><body>404</body></html>", "an HTML or XML page, not a recording; download it again"),
        (b"\xef\xbb\xbf\n<HTML>", "an HTML or XML page"),
        (b'{"error": "not found"}', "a text, not a recording"),
        ("Grüße".encode() * 400, "a text, not a recording"),
        (b"PK\3\4" + b"\0\1" * 90, "a ZIP archive; unpack it first"),
        (bytes(5000), "nothing but zero bytes; copy it again"),
    ],
    ids=["lfs", "html", "html with mark", "json", "prose", "zip", "zeros"],
)
def test_files_of_other_kinds_are_called_what_they_are(tmp_path: Path, content: bytes, kind: str) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    assert reason(tmp_path / "a.wav").startswith(f"cannot be decoded: it is {kind}")


def test_a_file_of_no_known_kind_names_the_way(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_bytes(bytes(range(1, 256)) * 9)
    found = reason(tmp_path / "a.xyz")
    assert found.startswith("cannot be decoded: ")
    assert found.endswith("; if others play it, convert it: ffmpeg -i FILE FILE.wav")


def test_every_known_kind_is_found_by_its_mark() -> None:
    assert all(foreign_kind(mark + bytes(range(200))) == kind for mark, kind in FOREIGN.items())

import errno
import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

from cache.errors import DiskFull, MmerError
from cache.files import replacing, writable


def test_what_a_kill_left_of_a_file_with_one_writer_is_taken_over(tmp_path: Path) -> None:
    for left in (".tmpA1b2C3", ".state.part"):
        (tmp_path / left).write_text("half of it")
    (tmp_path / ".tmp").write_text("of somebody else")
    with replacing(tmp_path / "state", shared=False) as fresh:
        fresh.write_text("all of it")
    assert {path.name for path in tmp_path.iterdir()} == {"state", ".tmp"}
    assert (tmp_path / "state").read_text() == "all of it"


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    (tmp_path / ".tmpA1b2C3").write_text("of another process")
    with replacing(tmp_path / "table") as fresh:
        assert str(os.getpid()) in fresh.name
        fresh.write_text("")
    assert (tmp_path / ".tmpA1b2C3").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_is_told_whoever_says_it(tmp_path: Path, number: int) -> None:
    spelt_out = SafetensorError(f"Error while serializing: I/O error: {os.strerror(number)} (os error {number})")
    for error in (OSError(number, os.strerror(number)), spelt_out):
        with pytest.raises(DiskFull, match="no space left while writing to"), writable(tmp_path):
            raise error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("of no number"), "of no number"),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES)), "Permission denied"),
        (
            SafetensorError("I/O error: Permission denied (os error 13)"),
            r"I/O error: Permission denied \(os error 13\)",
        ),
    ],
)
def test_anything_else_is_told_with_its_reason(tmp_path: Path, error: Exception, message: str) -> None:
    expected = rf"cannot write to .* \({message}\); choose a writable folder with --out$"
    with pytest.raises(MmerError, match=expected), writable(tmp_path):
        raise error

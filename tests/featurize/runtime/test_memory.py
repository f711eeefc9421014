import ctypes
import platform

import pytest

from featurize.runtime.memory import keep_freed_memory


def test_glibc_takes_both_thresholds() -> None:
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("needs glibc")
    assert keep_freed_memory()


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not keep_freed_memory()

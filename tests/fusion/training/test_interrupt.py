import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fusion.training.interrupt import SIGNALS, deferred_interrupts, never_stop


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_a_wish_and_the_second_acts(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    seen = []
    before = signal.signal(number, lambda *_: seen.append("as ever"))
    try:
        with deferred_interrupts() as stopping:
            assert not stopping()
            os.kill(os.getpid(), number)
            assert stopping()
            assert seen == []
            message = "\nstopping after this batch; the same command resumes; repeat the signal to stop at once\n"
            assert capfd.readouterr().err == message
            os.kill(os.getpid(), number)
            assert seen == ["as ever"]
        os.kill(os.getpid(), number)
        assert seen == ["as ever"] * 2
    finally:
        signal.signal(number, before)


def test_a_stderr_that_nobody_reads_any_more_stops_nothing() -> None:
    code = (
        "import os, signal, sys; from fusion.training.interrupt import deferred_interrupts\n"
        "with deferred_interrupts() as stopping:\n"
        "    sys.stdin.read(); os.kill(os.getpid(), signal.SIGINT); sys.exit(7 if stopping() else 1)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stderr=pipe, env=environment) as process:
        assert process.stderr is not None
        assert process.stdin is not None
        process.stderr.close()
        process.stdin.close()
    assert process.returncode == 7


def test_in_another_thread_nothing_changes() -> None:
    before, found = [signal.getsignal(number) for number in SIGNALS], []

    def work() -> None:
        with deferred_interrupts() as stopping:
            found.append((stopping(), [signal.getsignal(number) for number in SIGNALS]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(False, before)]


def test_nobody_wants_to_stop() -> None:
    assert not never_stop()

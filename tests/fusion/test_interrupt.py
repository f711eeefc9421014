import os
import signal
import threading

import pytest

from fusion.interrupt import SIGNALS, interrupts_put_off, never


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_a_wish_and_the_second_acts(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    seen = []
    before = signal.signal(number, lambda *_: seen.append("as ever"))
    try:
        with interrupts_put_off() as stopping:
            assert not stopping()
            os.kill(os.getpid(), number)
            assert stopping()
            assert seen == []
            assert (
                capfd.readouterr().err == "\nstopping after this batch, to go on from there; once more stops at once\n"
            )
            os.kill(os.getpid(), number)
            assert seen == ["as ever"]
        os.kill(os.getpid(), number)
        assert seen == ["as ever"] * 2
    finally:
        signal.signal(number, before)


def test_in_another_thread_nothing_changes() -> None:
    before, told = [signal.getsignal(one) for one in SIGNALS], []

    def work() -> None:
        with interrupts_put_off() as stopping:
            told.append((stopping(), [signal.getsignal(one) for one in SIGNALS]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert told == [(False, before)]


def test_nobody_wants_to_stop() -> None:
    assert not never()

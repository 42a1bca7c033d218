"""In one process; that several hosts end at one step is tested by train/test_pods.py."""

import os
import signal

from sari_jax.train.preemption import noticed


def test_a_signal_is_told_from_the_next_question_on():
    before = signal.getsignal(signal.SIGTERM)
    with noticed() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # launchers may say it twice
        assert stop() and stop()
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_one_run_was_told_is_not_told_to_the_next():
    with noticed() as stop:
        assert not stop()

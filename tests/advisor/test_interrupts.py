import os
import signal
import threading

import pytest

from advisor.interrupts import Interrupts, RunInterrupted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_at_the_next_step_and_handlers_are_given_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with Interrupts() as interrupts:
        assert interrupts.control(1, 10) == "go"
        interrupts.check()
        os.kill(os.getpid(), number)
        assert interrupts.control(2, 10) == "stopped"
        with pytest.raises(RunInterrupted, match=f"stopped by {number.name}; everything done so far is kept") as caught:
            interrupts.check()
        assert caught.value.reason == "signal"
    assert signal.getsignal(number) is before


def test_a_second_interrupt_ends_at_once() -> None:
    with Interrupts(), pytest.raises(KeyboardInterrupt):  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_a_request_to_stop_is_told_with_its_reason() -> None:
    wish: list[str | None] = [None]
    interrupts = Interrupts(lambda: wish[0])
    assert interrupts.control(1, 2) == "go"
    wish[0] = "the button"
    assert interrupts.control(1, 2) == "stopped"
    with pytest.raises(RunInterrupted, match=r"stopped on request \(the button\)"):
        interrupts.check()


def test_a_deadline_passes_inside_a_stage_and_may_be_let_pass() -> None:
    now = [0.0]
    interrupts = Interrupts(time_limit=5, clock=lambda: now[0])
    assert interrupts.control(1, 9) == "go"
    assert interrupts.seconds_left == 5
    now[0] = 5.0
    assert interrupts.control(2, 9) == "deadline"
    assert interrupts.control(9, 9) == "go"  # the last step is done: nothing is cut short
    assert interrupts.seconds_left == 0
    interrupts.check(deadline=False)
    with pytest.raises(RunInterrupted, match="time limit has passed"):
        interrupts.check()


def test_without_a_deadline_time_has_no_end() -> None:
    assert Interrupts().seconds_left is None


@pytest.mark.parametrize("limit", [0, -1, float("nan")])
def test_a_time_limit_must_be_positive(limit: float) -> None:
    with pytest.raises(ValueError, match=r"time_limit=.* must be more than 0"):
        Interrupts(time_limit=limit)


def test_a_thread_may_ask_but_leaves_signals_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def work() -> None:
        with Interrupts() as interrupts:
            seen.extend([interrupts.control(1, 2), signal.getsignal(signal.SIGINT) is before])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == ["go", True]


def test_work_without_steps_is_interrupted_at_once() -> None:
    with Interrupts() as interrupts:
        with pytest.raises(RunInterrupted, match="stopped by SIGTERM; everything done so far is kept"):  # noqa: SIM117
            with interrupts.at_once():
                signal.raise_signal(signal.SIGTERM)
        assert interrupts.reason == "signal"
    with Interrupts() as interrupts:
        with interrupts.at_once():
            pass
        signal.raise_signal(signal.SIGTERM)  # outside, the next question answers
        assert interrupts.control(1, 2) == "stopped"


def test_an_interruption_in_the_first_gradient_is_not_taken_for_a_layer_that_vmap_cannot_take(monkeypatch):
    from estimators import per_sample_gradients
    from tests.small_networks import small_objective, small_split

    def interrupted(*_: object) -> None:
        raise RunInterrupted("stopped by SIGINT; everything done so far is kept", "signal")

    monkeypatch.setattr(per_sample_gradients, "_vmapped", interrupted)
    objective = small_objective("cnn")
    with pytest.raises(RunInterrupted, match="stopped by SIGINT"):
        per_sample_gradients.measure_gradients(objective, objective.initial, small_split(4), population=4)

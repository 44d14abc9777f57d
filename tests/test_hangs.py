"""An environment in this process that hangs ends the run within env.timeout, named, its stack in error.log."""

import ctypes
import faulthandler
import signal
import sys
import time

import pytest
from command_line import SMALL, assert_one_error, call, wait_until

from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.hangs import HangError, Limit

pytest.importorskip("torch")

HANGING = ("env=hanging_envs:Hanging-v0", "env.num_envs=2", "env.timeout=1", "trainer.timesteps=1000", "run.dir=run")


@pytest.mark.parametrize("how", ["sleep", "deaf", "held"])
@pytest.mark.parametrize("phase", ["step", pytest.param("reset", marks=pytest.mark.slow)])
def test_a_hang_ends_the_run_also_after_a_signal(how, phase, here, zygote):
    process = zygote.start("train", *SMALL[:1], *HANGING, f"env.kwargs.how={how}", f"env.kwargs.phase={phase}")
    wait_until(lambda: (here / "run/train.log").exists() or process.poll() is not None, 30)
    time.sleep(0.3)  # it hangs by now, mostly
    process.send(signal.SIGTERM)
    result = process.wait(30)
    told = (here / "run/error.log").read_text()
    assert result.status == 1, result.err
    assert f"env.id=hanging_envs:Hanging-v0: copy 0: {phase}" in told and "no answer in 1 s (env.timeout)" in told


def test_only_calls_of_the_environment_count_and_faulthandler_s_timer_stays(tmp_path):
    """Other C code may hold the interpreter for longer; a slow call that ends in time is none that hangs."""
    with open(tmp_path / "stacks", "w") as file:
        faulthandler.dump_traceback_later(1.2, file=file)
        limit = Limit(0.5, "env.timeout")
        for _ in range(3):
            with limit:
                time.sleep(0.2)
        ctypes.PyDLL(None).usleep(900_000)
        started = time.monotonic()
        with pytest.raises(HangError, match=r"no answer in 0.5 s \(env.timeout\)"), limit:
            time.sleep(30)
        assert 0.4 < time.monotonic() - started < 20
        faulthandler.cancel_dump_traceback_later()
    assert "Timeout" in (tmp_path / "stacks").read_text()


def test_nothing_is_timed_under_a_debugger():
    before = sys.gettrace()
    sys.settrace(lambda *_: None)
    try:
        with Limit(0.1, "env.timeout"):
            time.sleep(0.3)
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("value", ["0", "-1", "1e9", "nan"])
def test_time_outs_have_sane_bounds(value, here):
    for key in ("env.timeout", "trainer.worker_timeout"):
        trainer = ["trainer=parallel"] if key.startswith("trainer") else []
        assert_one_error(call("train", *SMALL, *trainer, f"{key}={value}"), 2, key)
    assert not list(here.iterdir())


def test_copies_in_this_process_have_no_limit_unless_set():
    env = GymnasiumEnv({"id": "CartPole-v1", "num_envs": 1})
    assert env.cfg.timeout is None and not isinstance(env._limit, Limit)
    env.close()

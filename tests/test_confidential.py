"""Text that a resolver gave is in no file of the run, on no screen and in no log; numbers and declared choices are data."""

import json
from pathlib import Path

import pytest
import yaml
from command_line import Result, assert_one_error, merged, summary

from rltrain import confidential
from rltrain.checkpoints import CheckpointStore, read_part, verify

SECRETS = {"SECRET": "quince'fish\né-key", "ADDRESS": "https://me:hunter22x@host/db"}
TRACES = [b"quince", b"fish", b"-key", b"hunter22x"]
LEAKY = (
    "seed=1", "env=leaky_envs:Leaky-v0", "env.num_envs=2", "env.kwargs.password=${oc.env:SECRET}",
    "env.kwargs.address=${oc.env:ADDRESS}", "trainer.timesteps=40", "checkpoints.interval=16", "run.dir=run",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _afterwards():
    yield
    confidential.forget()


def run(zygote, *overrides: str, status: int = 0, base: tuple[str, ...] = LEAKY, **environ: str) -> Result:
    """Train in a process of its own, and look for the secrets everywhere."""
    result = zygote.run("train", *merged(base, overrides), **{**SECRETS, **environ})
    assert result.status == status, result.err
    assert_secret(result)
    return result


def assert_secret(result: Result) -> None:
    files = {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    for where, data in {**files, "screen": result.text.encode()}.items():
        assert not [trace for trace in TRACES if trace in data], where


def test_a_run_keeps_no_secret(here, zygote):
    """The environment prints it, warns of it and keeps it in attributes, which the checkpoint leaves out and says so."""
    result = run(zygote)
    assert 'out ["***"] ***' in result.out and "warned of ***" in result.err and "logged ***" in result.err
    left_out = "checkpoints leave out deep, of_address, password of the environment, which holds text that a resolver gave"
    assert left_out in (here / "run/train.log").read_text()
    latest = CheckpointStore(here / "run/checkpoints").pointer("latest")
    manifest = verify(latest)
    assert manifest["exact_resume"] is False
    copy = read_part(latest, "trainer", manifest)["env"]["copies"][0]
    assert copy["__left_out__"] == ["password", "deep", "of_address"] and b'["turns", ' in copy["tree"].tobytes()
    assert yaml.safe_load((here / "run/config.yaml").read_text())["env"]["kwargs"]["password"] == "${oc.env:SECRET}"
    again = run(zygote, "resume=run", "trainer.timesteps=60", base=())
    assert 'out ["***"] ***' in again.out and summary(here / "run")["timestep"] == 60


def test_an_environment_that_keeps_it_itself_is_reset_at_resume(here, zygote):
    run(zygote, "env=leaky_envs:Keeping-v0")
    assert verify(CheckpointStore(here / "run/checkpoints").pointer("latest"))["exact_resume"] is False


@pytest.mark.parametrize("how", ["sync", "async", pytest.param("parallel", marks=pytest.mark.slow)])
@pytest.mark.parametrize("phase", ["make", "step"])
def test_errors_say_none(how, phase, here, zygote):
    more = ["trainer=parallel", "agents=[a:ppo,b:ppo]"] if how == "parallel" else [f"env.vectorization={how}"]
    result = run(zygote, f"env.kwargs.fail_in={phase}", *more, status=1)
    assert f"{phase}: " in result.err and "***" in result.err and "Traceback" in result.err
    assert phase == "make" or "***" in (here / "run/error.log").read_text()


@pytest.mark.parametrize(
    "launcher", ["basic", *(pytest.param(name, marks=pytest.mark.slow) for name in ("joblib", "submitit_local"))]
)
@pytest.mark.parametrize("fail_in", ["step", pytest.param("", marks=pytest.mark.slow)])
def test_a_sweep_keeps_none(launcher, fail_in, here, zygote):
    base = tuple(override for override in LEAKY if not override.startswith("run.dir"))
    more = ("-m", "hydra.sweep.dir=sweep", f"hydra/launcher={launcher}", f"env.kwargs.fail_in={fail_in}")
    result = run(zygote, *more, base=base, status=1 if fail_in else 0)
    assert not fail_in or "step: " in result.err
    assert "${oc.env:SECRET}" in (here / "sweep/multirun.yaml").read_text()


def test_what_is_shown(here, zygote):
    result = run(zygote, "--cfg", "resolved")
    kwargs = yaml.safe_load(result.out)["env"]["kwargs"]
    assert kwargs == {"password": "***", "address": "***"}
    result = run(zygote, "env.kwargs.other=${vault:quince}", "plugins=[leaky_envs]", "--cfg", "resolved")
    assert yaml.safe_load(result.out)["env"]["kwargs"]["other"] == "***"
    assert_one_error(run(zygote, "env.id=${oc.env:SECRET}", base=(), status=2), 2, "env.id=***: no such environment")
    assert_one_error(run(zygote, "env.kwargs.nope=1", status=2), 2, "env.kwargs={'password': '***', 'address': '***', 'nope': 1}")
    typed = ("env.kwargs.address=https://me:hunter22x@host", "env.kwargs.nope=1")
    assert_one_error(run(zygote, *typed, status=2), 2, "'address': 'https://me:***@host'")
    assert "https://me:***@host" in run(zygote, typed[0], "--cfg", "job").out
    run(zygote, "dry_run=true")
    assert not (here / "run").exists()


def test_numbers_choices_and_defaults_are_data(here, zygote):
    values = ("seed=${oc.env:TASK}", "env.vectorization=${oc.env:HOW,async}")
    small = ("env.id=${oc.env:ID,CartPole-v1}", "env.num_envs=2", "trainer.timesteps=4", "run.dir=run")
    result = run(zygote, *values, *small, base=(), TASK="1234567")
    assert "seed: 1234567" in result.text and "***" not in result.text
    assert "CartPole-v1" in (here / "run/train.log").read_text()


def test_masking():
    """Quotes and escapes of errors that travelled, lines, addresses; nothing short; a longer text before its part."""
    confidential.learn(["short"])
    assert confidential.conceal("a short text") == "a short text"
    secret = 'it\'s "so"\\ é'
    confidential.remember(secret)
    confidential.remember("abcdef")
    confidential.remember("abcdefgh")
    for text in (
        secret,
        repr(secret),
        repr(repr(secret)),
        repr(f"'{secret}"),
        ascii(secret),
        json.dumps(secret),
        json.dumps(repr(secret)),
    ):
        assert "so" not in confidential.conceal(text), text
    assert confidential.conceal("abcdefgh abcdefg") == "*** ***g"
    assert confidential.is_held({"a": [("x", {"b": "-abcdef-"})]}) and confidential.is_held({"abcdef": 1})
    assert not confidential.is_held({"a": [1, None, b"abc", 2.0, "abcde"]})
    assert confidential.conceal_tree({"a": ["abcdef", ("abcdef", 1)]}) == {"a": ["***", ("***", 1)]}

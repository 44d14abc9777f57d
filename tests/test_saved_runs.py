"""Runs that an earlier version saved go on as if nothing had changed since; `saved_runs/make.py` says how they were made."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import call

from rltrain import checkpoints

SAVED = Path(__file__).parent / "saved_runs"
RUNS = sorted(path.name for path in SAVED.iterdir() if (path / "whole.npz").exists())
COMPILE_LONG = {"a2c_jax", "ddpg_jax", "ddqn_jax"}
END = 80


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in COMPILE_LONG else []) for n in RUNS])
def test_a_saved_run_goes_on(name, tmp_path, monkeypatch):
    pytest.importorskip("jax" if name.endswith("jax") else "torch")
    if name.startswith("mappo"):
        pytest.importorskip("mpe2")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(SAVED / name / "half", tmp_path / "run")
    given = call("train", "resume=run", f"trainer.timesteps={END}", "plugins=[pixel_envs]", "trust=true")
    assert given.status == 0, given.text
    path = tmp_path / "run" / "checkpoints" / str(END)
    manifest = checkpoints.verify(path)
    policy = checkpoints.read_part(path, f"agents/{name.partition('_')[0]}/policy", manifest)
    found = {
        f"{group}/{key}": array
        for group, part in policy.get("groups", {"": policy}).items()
        for key, array in part["parameters"].items()
    }
    with np.load(SAVED / name / "whole.npz") as whole:
        assert found.keys() == set(whole.files)
        for key in whole.files:  # another machine's products are rounded otherwise
            np.testing.assert_allclose(found[key], whole[key], rtol=1e-4, atol=1e-5, err_msg=key)

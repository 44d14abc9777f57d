"""What of infos belongs to a scope, and what a trainer says of images."""

import gymnasium
import numpy as np
import pytest

from rltrain.agents.base import Agent
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.structures import Step
from rltrain.trainers import SequentialTrainer
from rltrain.trainers.scopes import cut, cut_named


def test_only_what_has_a_row_per_copy_is_cut_out_of_infos():
    rows, mask = np.arange(4.0), np.array([True, False, True, True])
    palette = np.arange(12).reshape(4, 3)  # as long as there are copies, by coincidence
    infos = {
        "score": rows, "_score": mask, "palette": palette, "is_success": rows, "note": "all",
        "parts": {"x": rows, "_x": mask, "weights": rows}, "_parts": mask,
    }  # fmt: skip
    flags = np.zeros(4, bool)
    step = Step(rows, None, rows, flags, flags, None, infos, rows)
    for found in (cut(step, slice(1, 3), 4).infos, cut_named({"infos": infos}, slice(1, 3), 4)["infos"]):
        assert found["score"].tolist() == found["parts"]["x"].tolist() == found["is_success"].tolist() == [1.0, 2.0]
        assert found["_score"].tolist() == found["_parts"].tolist() == [False, True]
        assert found["palette"] is palette and found["parts"]["weights"] is rows and found["note"] == "all"
    assert cut(step, slice(1, 3), 4).exact_rewards.tolist() == [1.0, 2.0]


class Picture(gymnasium.Env):
    """Shows a small image."""

    observation_space = gymnasium.spaces.Box(0, 255, (4, 4, 3), np.uint8)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        """Begin."""
        return np.zeros((4, 4, 3), np.uint8), {}

    def step(self, action):
        """Go on."""
        return np.full((4, 4, 3), 200, np.uint8), 1.0, False, False, {}


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({}, "ppo reads an image (4, 4, 3) with its channels last / 255 by conv 16 3x3, linear 128"),
        ({"cnn": "none"}, "observations: an image (4, 4, 3) of 0 to 255 is read as a row of 48 numbers, unscaled"),
    ],
)
def test_how_images_are_read_is_said_once(how, sentence, capsys):
    torch = pytest.importorskip("rltrain.agents.ppo.torch")
    env = GymnasiumEnv({"id": "picture", "num_envs": 2}, seed=1, make=Picture)
    cfg = {"rollout_length": 4, "minibatches": 1, "network": how}
    agent = Agent(torch.PPO(env.observation_space, env.action_space, num_envs=2, cfg=cfg, seed=1), name="ppo")
    trainer = SequentialTrainer(env, agent, cfg={"timesteps": 4, "disable_progressbar": True})
    trainer.train()
    trainer.timesteps = 8
    trainer.train()
    assert capsys.readouterr().err.count(sentence) == 1

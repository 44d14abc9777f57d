"""skrl's PPO on task T5: two agents at once, by its SequentialTrainer or its ParallelTrainer."""

import time
from typing import Any

import gymnasium
import torch
from skrl.agents.torch.ppo import PPO, PPO_CFG
from skrl.envs.wrappers.torch import wrap_env
from skrl.memories.torch import RandomMemory
from skrl.models.torch import CategoricalMixin, DeterministicMixin, Model
from skrl.trainers.torch import ParallelTrainer, SequentialTrainer
from skrl.utils import set_seed

from peers.t1 import EPOCHS, MINIBATCHES, ROLLOUT, Result

COPIES, WARMUP = 16, 2 * ROLLOUT  # of the environment; timesteps


class Network(Model):
    """64x64, tanh."""

    def __init__(self, outputs: int, **spaces: Any) -> None:
        Model.__init__(self, **spaces, device="cpu")
        layers = [torch.nn.Linear(self.num_observations, 64), torch.nn.Tanh(), torch.nn.Linear(64, 64), torch.nn.Tanh()]
        self.net = torch.nn.Sequential(*layers, torch.nn.Linear(64, outputs))

    def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[torch.Tensor, dict[str, Any]]:
        """Return the network's outputs."""
        return self.net(inputs["observations"]), {}


class Policy(CategoricalMixin, Network):
    """Two choices."""

    def __init__(self, **spaces: Any) -> None:
        Network.__init__(self, 2, **spaces)
        CategoricalMixin.__init__(self, unnormalized_log_prob=True)


class Value(DeterministicMixin, Network):
    """One value."""

    def __init__(self, **spaces: Any) -> None:
        Network.__init__(self, 1, **spaces)
        DeterministicMixin.__init__(self)


def run(env_steps: int, seed: int, *, parallel: bool) -> Result:
    """Train two agents, 8 copies each, in skrl's quickest setting: no statistics, no files."""
    torch.set_num_threads(1)
    set_seed(seed)
    env = wrap_env(gymnasium.make_vec("CartPole-v1", num_envs=COPIES, vectorization_mode="sync"), verbose=False)
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    agents = []
    for _ in range(2):
        cfg = PPO_CFG(
            rollouts=ROLLOUT, learning_epochs=EPOCHS, mini_batches=MINIBATCHES, learning_rate=2.5e-4, discount_factor=0.99,
            gae_lambda=0.95, ratio_clip=0.2, value_clip=0.0, entropy_loss_scale=0.01, value_loss_scale=0.5, grad_norm_clip=0.5,
            experiment={"write_interval": 0, "checkpoint_interval": 0},
        )  # fmt: skip
        memory = RandomMemory(memory_size=ROLLOUT, num_envs=COPIES // 2, device="cpu")
        models = {"policy": Policy(**spaces), "value": Value(**spaces)}
        agents.append(PPO(models=models, memory=memory, cfg=cfg, device="cpu", **spaces))
    stepped: list[float] = []
    step = env.step

    def timed_step(actions: Any) -> Any:
        answer = step(actions)
        stepped.append(time.perf_counter())
        return answer

    env.step = timed_step
    settings = {"timesteps": env_steps // COPIES, "headless": True, "disable_progressbar": True}
    kind = ParallelTrainer if parallel else SequentialTrainer
    trainer = kind(env=env, agents=agents, scopes=[COPIES // 2, COPIES // 2], cfg=settings)
    trainer.train()
    return {"env_steps": (len(stepped) - WARMUP) * COPIES, "seconds": time.perf_counter() - stepped[WARMUP - 1]}

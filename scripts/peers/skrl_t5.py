"""skrl's PPO on task T5: two agents at once, by its SequentialTrainer or its ParallelTrainer."""

import time
from typing import Any

from peers.t1 import EPOCHS, MINIBATCHES, ROLLOUT, Result

COPIES, WARMUP = 16, 2 * ROLLOUT  # of the environment; timesteps


def run(env_steps: int, seed: int, *, parallel: bool) -> Result:
    """Train two agents, 8 copies each, in skrl's quickest setting: no statistics, no files."""
    import gymnasium
    import torch
    from skrl.agents.torch.ppo import PPO, PPO_CFG
    from skrl.envs.wrappers.torch import wrap_env
    from skrl.memories.torch import RandomMemory
    from skrl.trainers.torch import ParallelTrainer, SequentialTrainer
    from skrl.utils import set_seed

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
        models = {"policy": make("policy", **spaces), "value": make("value", **spaces)}
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
    trainer = kind(env=env, agents=agents, agents_scope=[COPIES // 2, COPIES // 2], cfg=settings)
    trainer.train()
    seconds = time.perf_counter() - stepped[WARMUP - 1]
    return {"env_steps": (len(stepped) - WARMUP) * COPIES, "seconds": seconds}


def make(role: str, **spaces: Any) -> Any:
    """Return a policy or value network: 64x64, tanh."""
    import torch
    from skrl.models.torch import CategoricalMixin, DeterministicMixin, Model

    class Network(CategoricalMixin if role == "policy" else DeterministicMixin, Model):  # type: ignore[misc]
        def __init__(self) -> None:
            Model.__init__(self, **spaces, device="cpu")
            if role == "policy":
                CategoricalMixin.__init__(self, unnormalized_log_prob=True)
            else:
                DeterministicMixin.__init__(self)
            layers = [torch.nn.Linear(self.num_observations, 64), torch.nn.Tanh(), torch.nn.Linear(64, 64), torch.nn.Tanh()]
            self.net = torch.nn.Sequential(*layers, torch.nn.Linear(64, 2 if role == "policy" else 1))

        def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[torch.Tensor, dict[str, Any]]:
            return self.net(inputs["observations"]), {}

    return Network()

"""skrl's DQN and SAC on the off-policy tasks."""

from typing import Any

from peers.off_policy import DQN, SAC, Result, Task, make_timed, rate, total

QUIET = {"write_interval": 0, "checkpoint_interval": 0}


def run(task: Task, seed: int) -> Result:
    """Train with skrl's SequentialTrainer in this process, without its statistics."""
    import torch
    from skrl.envs.wrappers.torch import wrap_env
    from skrl.memories.torch import RandomMemory
    from skrl.trainers.torch import SequentialTrainer
    from skrl.utils import set_seed

    torch.set_num_threads(1)
    set_seed(seed)
    timed = make_timed(task)
    env = wrap_env(timed, wrapper="gymnasium", verbose=False)
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    memory = RandomMemory(memory_size=(DQN if task.algorithm == "dqn" else SAC)["memory"], num_envs=1, device="cpu")
    agent = (_dqn if task.algorithm == "dqn" else _sac)(task, spaces, memory)
    cfg = {"timesteps": total(task), "headless": True, "disable_progressbar": True}
    SequentialTrainer(env=env, agents=agent, cfg=cfg).train()
    return {"env_steps_per_second": rate(task, timed)}


def _layers(inputs: int, sizes: list[int], outputs: int) -> Any:
    from torch import nn

    layers: list[Any] = []
    for size in sizes:
        layers += [nn.Linear(inputs, size), nn.ReLU()]
        inputs = size
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def _dqn(task: Task, spaces: Any, memory: Any) -> Any:
    from skrl.agents.torch import dqn
    from skrl.models.torch import DeterministicMixin, Model

    class Network(DeterministicMixin, Model):
        def __init__(self, **spaces: Any) -> None:
            Model.__init__(self, **spaces, device="cpu")
            DeterministicMixin.__init__(self)
            self.net = _layers(self.num_observations, DQN["sizes"], self.num_actions)

        def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[Any, dict[str, Any]]:
            return self.net(inputs["observations"]), {}

    cfg = dqn.DQN_CFG(
        gradient_steps=1, batch_size=DQN["batch"], learning_rate=DQN["learning_rate"], polyak=1.0,
        learning_starts=task.starts, random_timesteps=0, update_interval=DQN["every"],
        target_update_interval=DQN["target_every"], experiment=QUIET,
    )  # fmt: skip
    models = {"q_network": Network(**spaces), "target_q_network": Network(**spaces)}
    return dqn.DQN(models=models, memory=memory, cfg=cfg, device="cpu", **spaces)


def _sac(task: Task, spaces: Any, memory: Any) -> Any:
    import torch
    from skrl.agents.torch import sac
    from skrl.models.torch import DeterministicMixin, GaussianMixin, Model

    class Policy(GaussianMixin, Model):
        def __init__(self, **spaces: Any) -> None:
            Model.__init__(self, **spaces, device="cpu")
            GaussianMixin.__init__(self, clip_actions=False, clip_log_std=True, min_log_std=-5, max_log_std=2)
            self.net = _layers(self.num_observations, SAC["sizes"], self.num_actions)
            self.log_std = torch.nn.Parameter(torch.zeros(self.num_actions))

        def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[Any, dict[str, Any]]:
            return torch.tanh(self.net(inputs["observations"])), {"log_std": self.log_std}

    class Critic(DeterministicMixin, Model):
        def __init__(self, **spaces: Any) -> None:
            Model.__init__(self, **spaces, device="cpu")
            DeterministicMixin.__init__(self)
            self.net = _layers(self.num_observations + self.num_actions, SAC["sizes"], 1)

        def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[Any, dict[str, Any]]:
            return self.net(torch.cat([inputs["observations"], inputs["taken_actions"]], dim=1)), {}

    cfg = sac.SAC_CFG(
        gradient_steps=1, batch_size=SAC["batch"], learning_rate=SAC["learning_rate"], polyak=SAC["polyak"],
        learning_starts=task.starts, random_timesteps=task.starts, learn_entropy=True, experiment=QUIET,
    )  # fmt: skip
    names = ("critic_1", "critic_2", "target_critic_1", "target_critic_2")
    models = {"policy": Policy(**spaces), **{name: Critic(**spaces) for name in names}}
    return sac.SAC(models=models, memory=memory, cfg=cfg, device="cpu", **spaces)

"""skrl's IPPO and MAPPO on simple_spread_v3: one copy, which is what its PettingZoo wrapper takes."""

import dataclasses
import time
from typing import Any

import torch
from mpe2 import simple_spread_v3
from skrl.envs.wrappers.torch import wrap_env
from skrl.memories.torch import RandomMemory
from skrl.models.torch import CategoricalMixin, DeterministicMixin, Model
from skrl.multi_agents.torch.ippo import IPPO, IPPO_CFG
from skrl.multi_agents.torch.mappo import MAPPO, MAPPO_CFG
from skrl.trainers.torch import SequentialTrainer
from skrl.utils import set_seed

from peers.t1 import Result

ROLLOUT, EPOCHS, MINIBATCHES = 800, 10, 4  # env steps of a rollout


def network(inputs: int, outputs: int) -> torch.nn.Module:
    """64x64, tanh."""
    layers = [torch.nn.Linear(inputs, 64), torch.nn.Tanh(), torch.nn.Linear(64, 64), torch.nn.Tanh()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(64, outputs))


class Policy(CategoricalMixin, Model):
    """Five choices."""

    def __init__(self, **spaces: Any) -> None:
        Model.__init__(self, **spaces, device="cpu")
        CategoricalMixin.__init__(self, unnormalized_log_prob=True)
        self.net = network(self.num_observations, 5)

    def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[torch.Tensor, dict[str, Any]]:
        """Return the network's outputs."""
        return self.net(inputs["observations"]), {}


class Value(DeterministicMixin, Model):
    """One value, of the observation or, `central`, of the state."""

    def __init__(self, *, central: bool, **spaces: Any) -> None:
        Model.__init__(self, **spaces, device="cpu")
        DeterministicMixin.__init__(self)
        self.read = "states" if central else "observations"
        self.net = network(self.num_states if central else self.num_observations, 1)

    def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[torch.Tensor, dict[str, Any]]:
        """Return the network's outputs."""
        return self.net(inputs[self.read]), {}


def run(env_steps: int, seed: int, *, central: bool) -> Result:
    """Train three agents in skrl's quickest setting: no statistics, no files."""
    torch.set_num_threads(1)
    set_seed(seed)
    env = wrap_env(simple_spread_v3.parallel_env(), wrapper="pettingzoo", verbose=False)
    names = env.possible_agents
    spaces = {"observation_spaces": env.observation_spaces, "state_spaces": env.state_spaces, "action_spaces": env.action_spaces}
    own = {name: {f"{key[:-1]}": by_agent[name] for key, by_agent in spaces.items()} for name in names}
    empty = {  # version 2.1.1 refuses its own empty defaults
        field.name: {name: {} for name in names} for field in dataclasses.fields(IPPO_CFG) if field.name.endswith("_kwargs")
    }
    if central:
        empty["state_preprocessor_kwargs"] = {name: {} for name in names}
    kind, settings = (MAPPO, MAPPO_CFG) if central else (IPPO, IPPO_CFG)
    agents = kind(
        possible_agents=names,
        models={name: {"policy": Policy(**own[name]), "value": Value(central=central, **own[name])} for name in names},
        memories={name: RandomMemory(memory_size=ROLLOUT, num_envs=1, device="cpu") for name in names},
        cfg=settings(
            rollouts=ROLLOUT, learning_epochs=EPOCHS, mini_batches=MINIBATCHES, learning_rate=1e-3, discount_factor=0.95,
            experiment={"write_interval": 0, "checkpoint_interval": 0}, **empty,
        ),
        device="cpu",
        **spaces,
    )  # fmt: skip
    stepped: list[float] = []
    step = env.step

    def timed_step(actions: Any) -> Any:
        answer = step(actions)
        stepped.append(time.perf_counter())
        return answer

    env.step = timed_step
    cfg = {"timesteps": env_steps, "headless": True, "disable_progressbar": True}
    SequentialTrainer(env=env, agents=agents, cfg=cfg).train()
    return {"env_steps": len(stepped) - ROLLOUT, "seconds": time.perf_counter() - stepped[ROLLOUT - 1]}

"""PPO that leaves by sys.exit() or the like where QUIT says so (`quitting.py`): phases update, act and snapshot."""

from quitting import perhaps

from rltrain.agents.ppo.config import PPOConfig
from rltrain.agents.ppo.torch import PPO
from rltrain.config import register


class Quitter(PPO):
    def act(self, *args, **kwargs):
        perhaps("act")
        return super().act(*args, **kwargs)

    def update(self, progress):
        perhaps("update")
        return super().update(progress)

    def snapshot(self):
        perhaps("snapshot")
        return super().snapshot()


register("agents", "quitter", "quitting_agents.Quitter", PPOConfig)

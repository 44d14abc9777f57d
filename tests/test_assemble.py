"""Parts are made from a checked configuration only, and closed again where one fails."""

import pytest

from rltrain import assemble
from rltrain.commands.plans import finish_plan
from rltrain.config import compose
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.errors import ConfigError
from rltrain.seeding import EVALUATION_ENVIRONMENTS, FINAL_EVALUATION_ENVIRONMENTS, TRAINING_ENVIRONMENTS, environment_seeds


def checked(*overrides):
    return finish_plan(compose(["seed=3", "env.num_envs=4", *overrides])).config


def test_training_best_and_final_figure_have_seeds_of_their_own():
    """`best` is chosen on other episodes than those that are cited."""
    config = checked("evaluation.interval=10")
    trainer = assemble.make_trainer(config)
    final = assemble.make_env(config, role=FINAL_EVALUATION_ENVIRONMENTS)
    assert trainer.env.seeds == environment_seeds(3, TRAINING_ENVIRONMENTS, 4)
    assert trainer.evaluation_env.seeds == environment_seeds(3, EVALUATION_ENVIRONMENTS, 4)
    assert final.seeds == environment_seeds(3, FINAL_EVALUATION_ENVIRONMENTS, 4)
    assert len({*trainer.env.seeds, *trainer.evaluation_env.seeds, *final.seeds}) == 12
    trainer.close()
    final.close()


def test_an_environment_for_evaluations_only_where_they_are_due():
    trainer = assemble.make_trainer(checked())
    assert trainer.evaluation_env is None
    trainer.close()


@pytest.mark.parametrize("fails", ["make_backend", "make_agents"])
def test_what_was_made_is_closed_where_a_part_fails(fails, monkeypatch):
    closed = []
    monkeypatch.setattr(GymnasiumEnv, "close", lambda self: closed.append(self))

    def fail(*args, **kwargs):
        raise ConfigError("backend.device", "x", "not found")

    monkeypatch.setattr(assemble, fails, fail)
    with pytest.raises(ConfigError, match="not found"):
        assemble.make_trainer(checked())
    assert len(closed) == 1


@pytest.mark.parametrize("target", ["os.system", "builtins.eval", "rltrainer.Evil", "subprocess.Popen", "own.Agent"])
def test_only_allowed_packages_are_followed(target):
    with pytest.raises(ConfigError, match="lies outside the allowed packages: rltrain, other"):
        assemble.follow(target, ["other"])


def test_a_package_named_in_plugins_is_followed():
    assert assemble.follow("json.JSONDecoder", ["json"]).__name__ == "JSONDecoder"
    with pytest.raises(ConfigError, match=r"rltrain\.errors has no Nothing"):
        assemble.follow("rltrain.errors.Nothing", [])

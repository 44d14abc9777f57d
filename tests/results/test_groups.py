"""Which runs are seeds of one thing, and what groups are called."""

import pytest
from made_runs import make_run, make_sweep

from rltrain.errors import ConfigError
from rltrain.results.curves import choose_metric, read_curves
from rltrain.results.groups import make_groups, short_names
from rltrain.results.records import read_runs


def groups(*places, by=(), metric=None):
    records = read_runs(places)
    found = make_groups(read_curves(records, metric or choose_metric(records)[0]), by)
    return {group.name: group for group in found}


def sizes(*places, **how):
    return {name: len(group.curves) for name, group in groups(*places, **how).items()}


def test_runs_that_differ_in_the_seed_alone_are_one_group(tmp_path):
    found = groups(make_sweep(tmp_path))
    assert {name: [curve.record.seed for curve in group.curves] for name, group in found.items()} == {
        "learning_rate=0.001": [1, 2, 3, 4, 5],
        "learning_rate=0.01": [1, 2, 3, 4, 5],
    }
    assert found["learning_rate=0.01"].settings == {"agents.ppo.learning_rate": 0.01}
    assert short_names(list(found)) == ("learning_rate", ["0.001", "0.01"])


def test_what_changes_nothing_makes_no_group(tmp_path):
    make_run(tmp_path / "a", seed=1)
    settings = {"tracking": {"interval": 7}, "checkpoints": {"keep": 9}, "resume": "auto", "plugins": ["mine"]}
    settings |= {"trainer": {"_target_": "rltrain.trainers.ParallelTrainer", "timesteps": 100}, "total_env_steps": 400}
    make_run(tmp_path / "b", seed=2, settings={**settings, "backend": {"name": "torch", "threads": 4}}, host="there")
    assert sizes(tmp_path) == {"ppo": 2}


def test_one_setting_of_several_that_go_together_is_enough_for_a_name(tmp_path):
    for i, (rate, epochs) in enumerate([(0.1, 4), (0.1, 4), (0.2, 8)]):
        make_run(tmp_path / str(i), seed=i, agents={"ppo": {"learning_rate": rate, "epochs": epochs}})
    found = groups(tmp_path)
    assert sizes(tmp_path) == {"learning_rate=0.1": 2, "learning_rate=0.2": 1}
    assert found["learning_rate=0.2"].settings == {"agents.ppo.learning_rate": 0.2, "agents.ppo.epochs": 8}
    make_run(tmp_path / "3", agents={"ppo": {"learning_rate": 0.2, "epochs": 4}})
    assert list(groups(tmp_path)) == ["learning_rate=0.1 epochs=4", "learning_rate=0.2 epochs=4", "learning_rate=0.2 epochs=8"]


def test_algorithms_go_by_their_names(tmp_path):
    make_run(tmp_path / "a", agents={"ppo": {"learning_rate": 0.1, "epochs": 4}})
    make_run(tmp_path / "b", agents={"sac": {"kind": "sac", "learning_rate": 0.2, "batch_size": 32}})
    assert sizes(tmp_path) == {"ppo": 1, "sac": 1}
    make_run(tmp_path / "c", agents={"sac": {"kind": "sac", "learning_rate": 0.3, "batch_size": 32}})
    assert sizes(tmp_path) == {"ppo": 1, "sac learning_rate=0.2": 1, "sac learning_rate=0.3": 1}


def test_settings_that_only_differ_between_tasks_belong_to_the_task(tmp_path):
    for env, epochs in (("CartPole-v1", 4), ("Pendulum-v1", 10)):
        for rate in (0.1, 0.2):
            make_run(tmp_path / f"{env}{rate}", env=env, agents={"ppo": {"learning_rate": rate, "epochs": epochs}})
    found = groups(tmp_path)
    assert list(found) == ["learning_rate=0.1", "learning_rate=0.2"]
    assert [curve.task for curve in found["learning_rate=0.2"].curves] == ["CartPole-v1", "Pendulum-v1"]


def test_settings_that_another_version_had_not_make_no_group_but_kwargs_do(tmp_path):
    make_run(tmp_path / "a", agents={"ppo": {"learning_rate": 0.1}})
    make_run(tmp_path / "b", agents={"ppo": {"learning_rate": 0.1, "brand_new": 3}})
    assert sizes(tmp_path) == {"ppo": 2}
    for name, gravity in (("c", 5.0), ("d", 9.0)):
        env = {"id": "CartPole-v1", "num_envs": 4, "kwargs": {"gravity": gravity}}
        make_run(tmp_path / name, settings={"env": env}, agents={"ppo": {"learning_rate": 0.1}})
    assert sizes(tmp_path / "c", tmp_path / "d") == {"gravity=5": 1, "gravity=9": 1}
    assert sizes(tmp_path / "c", tmp_path / "a") == {"gravity=null": 1, "gravity=5": 1}


def test_agents_of_equal_settings_in_one_run_are_seeds(tmp_path):
    make_run(tmp_path / "a", agents={"ppo": {"learning_rate": 0.1, "count": 4}})
    assert sizes(tmp_path) == {"ppo": 4}
    make_run(tmp_path / "b", agents={"fast": {"learning_rate": 0.1}, "alike": {"learning_rate": 0.1}})
    assert sizes(tmp_path / "b") == {"ppo": 2}


def test_agents_of_other_settings_in_one_run_are_groups_by_their_names(tmp_path):
    make_run(tmp_path / "a", seed=1, agents={"fast": {"epochs": 4}, "slow": {"epochs": 9}})
    make_run(tmp_path / "b", seed=2, agents={"fast": {"epochs": 4}, "slow": {"epochs": 9}})
    assert sizes(tmp_path) == {"fast": 2, "slow": 2}


def test_an_agent_among_others_is_compared_by_its_own_copies(tmp_path):
    """2 of 4 copies are another setting than all 4 of them; the same as a run of 2 alone."""
    make_run(tmp_path / "pair", agents={"ppo": {"epochs": 4}, "a2c": {"kind": "a2c"}})
    make_run(
        tmp_path / "alone",
        seed=2,
        settings={"env": {"id": "CartPole-v1", "num_envs": 2, "kwargs": {}}},
        agents={"ppo": {"epochs": 4}},
    )
    assert sizes(tmp_path) == {"a2c": 1, "ppo": 2}
    make_run(tmp_path / "four", agents={"ppo": {"epochs": 4}})
    assert sizes(tmp_path) == {"a2c": 1, "ppo num_envs=2": 2, "ppo num_envs=4": 1}


def test_members_of_a_team_are_groups(tmp_path):
    run = make_run(tmp_path / "a", tag="members/red/episode_return_mean")
    text = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(text + text.replace("members/red", "members/blue"))
    found = groups(run, metric="members/*/episode_return_mean")
    assert {name: group.curves[0].tag for name, group in found.items()} == {
        "blue": "members/blue/episode_return_mean",
        "red": "members/red/episode_return_mean",
    }


def test_backends_go_by_their_names(tmp_path):
    make_run(tmp_path / "a", settings={"backend": {"name": "jax", "device": "cpu"}})
    make_run(tmp_path / "b")
    assert sizes(tmp_path) == sizes(tmp_path, by=["backend"]) == {"backend=jax": 1, "backend=torch": 1}


def test_by(tmp_path):
    for i, (rate, epochs) in enumerate([(0.1, 4), (0.1, 8), (0.2, 8)]):
        make_run(tmp_path / str(i), seed=i, agents={"ppo": {"learning_rate": rate, "epochs": epochs}})
    assert sizes(tmp_path, by=["agents.ppo.epochs"]) == {"epochs=4": 1, "epochs=8": 2}
    assert sizes(tmp_path, by=["learning_rate"]) == {"learning_rate=0.1": 2, "learning_rate=0.2": 1}
    assert list(groups(tmp_path, by=["learning_rate", "epochs"])) == [
        "learning_rate=0.1 epochs=4",
        "learning_rate=0.1 epochs=8",
        "learning_rate=0.2 epochs=8",
    ]
    assert sizes(tmp_path, by=["seed"]) == {"seed=0": 1, "seed=1": 1, "seed=2": 1}
    assert sizes(tmp_path, by=["env.id"]) == sizes(tmp_path, by=["env"]) == {"env=CartPole-v1": 3}
    with pytest.raises(
        ConfigError, match=r"^by=agents\.ppo\.learning_rat: no run has .* did you mean 'agents\.ppo\.learning_rate'"
    ):
        groups(tmp_path, by=["agents.ppo.learning_rat"])


def test_numbers_are_in_order_and_names_unique(tmp_path):
    for i, rate in enumerate([0.1, 1e-05, 0.02]):
        make_run(tmp_path / str(i), agents={"ppo": {"learning_rate": rate}})
    assert list(groups(tmp_path)) == ["learning_rate=1e-05", "learning_rate=0.02", "learning_rate=0.1"]
    for i in range(2):
        make_run(tmp_path / f"long/{i}", agents={"ppo": {"path": "x" * 60 + str(i)}})
    names = list(groups(tmp_path / "long"))
    assert len(set(names)) == 2 and names[1] == f"{names[0]} #2"

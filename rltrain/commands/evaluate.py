"""`rltrain eval`: play a checkpoint's policies on episodes that count, and say how they did."""

import json
import math
import os
import re
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rltrain import assemble, checkpoints, generators
from rltrain import config as configuration
from rltrain.agents.random import RandomAgent
from rltrain.checks import build, option
from rltrain.commands.filming import Studio, find_studio
from rltrain.commands.plans import add_plugins, load_config, load_plugins, take
from rltrain.commands.reading import Held, hold_each, hold_found, load_policies
from rltrain.confidential import conceal_tree
from rltrain.errors import CommandError, ConfigError, NonFiniteError, nearest
from rltrain.evaluation import summarize
from rltrain.runs import EXIT_STATUS, Run, check_writable, holds_run, make_run_directory
from rltrain.screen import Screen, print_out, stdout_to_stderr, table, write_error, write_out
from rltrain.seeding import FINAL_EVALUATION_ENVIRONMENTS, MAX_SEED, PROCESS_GENERATORS, seed64


@dataclass
class EvalOptions:
    """What `rltrain eval` takes besides overrides of the checkpoint's configuration."""

    checkpoint: str = option("latest", "a checkpoint, RUN, RUN/best, RUN/latest, latest or latest/best")
    episodes: int = option(100, "episodes per agent", low=1, high=10_000_000)
    seed: int | None = option(None, "of environments and sampling; null: the run's", low=0, high=MAX_SEED)
    json: bool = option(False, "print the figures as JSON, alone on stdout")
    render: str | None = option(None, "human: show the episodes in a window", choices=["human"])
    video: str = option(
        "false",
        "videos of the best, the median and the worst episode, in the run's videos/: true or mp4, or gif",
        choices=["false", "true", "mp4", "gif"],
    )
    out: str | None = option(None, "where the videos go instead")
    random: bool | None = option(
        None, "also play random actions on the same starts, to compare with; null: beside teams, unless episodes are shown"
    )
    fail_under: float | None = option(None, "exit 1 if an agent's mean is below")

    def check(self, key: str) -> None:
        """Raise ConfigError for options that don't go together."""
        if self.video != "false" and self.render is not None:
            raise ConfigError("video", self.video, f"render={self.render} shows the episodes in a window; give one of them")
        if self.video == "false" and self.out is not None:
            raise ConfigError("out", self.out, "says where videos go; add video=true")


LABELS = {
    "episodes": "episodes",
    "mean": "mean",
    "sum_mean": "mean of the members' sum",
    "mean_interval": "95 % interval of the mean",
    "std": "standard deviation",
    "median": "median",
    "iqm": "interquartile mean",
    "min": "min",
    "max": "max",
    "length_mean": "mean length",
    "success_rate": "success rate",
    "cut_episodes": "episodes cut",
}
STEPS = ("timestep", "env_steps")
RESULTS = "outputs/evaluations"
OPTIONS = ("checkpoint", "episodes", "seed", "json", "render", "video", "out", "random", "fail_under")
TAKEN = re.compile(
    r"(\+\+?)?(env|backend|env\..+|backend\..+|trainer\.stochastic_evaluation|evaluation\.max_episode_steps|run\.dir)"
)


def evaluate(arguments: Sequence[str]) -> int:
    """Evaluate, and return the exit status: 1 if a mean is below `fail_under`."""
    options, overrides = _read(arguments)
    with stdout_to_stderr() if options.json else nullcontext():  # whatever an environment prints
        status, figures = _evaluate(options, overrides)
    if options.json and figures is not None:
        write_out(json.dumps(figures) + "\n")  # they stand in eval.json, too
    return status


@dataclass
class Played:
    """What an evaluation found out; nothing of it is written yet."""

    run: Run
    config: Any
    first: Held
    held: dict[str, Held]  # by agent
    results: dict[str, dict[str, Any]]  # by agent
    at_random: dict[str, dict[str, Any]]
    env_info: dict[str, Any]
    studio: Studio

    def figures(self) -> dict[str, Any]:
        """Return the figures as `rltrain eval` prints them.

        Raises NonFiniteError for returns of which none can be made.
        """
        _check_returns(self.results)
        figures: dict[str, Any] = {"agents": {name: summarize(result) for name, result in self.results.items()}}
        if self.at_random:
            figures["random"] = {name: summarize(result) for name, result in self.at_random.items()}
        if self.studio.videos:
            figures["videos"] = self.studio.videos
        return figures


def _evaluate(options: EvalOptions, overrides: list[str]) -> tuple[int, dict[str, Any] | None]:
    """Evaluate; return the exit status and the figures, if there are any."""
    overrides, special = take(overrides, "run.dir")
    wanted = special.get("run.dir")
    played = play(options, overrides, place=wanted or RESULTS)
    if played.run.stop_signal is not None:
        played.run.pass_signal_on()
        return EXIT_STATUS[played.run.stop_signal], None
    figures = played.figures()
    played.studio.tell()
    directory = write(played, figures, options, wanted)
    if not options.json:
        _print(played, figures, directory)
    low = [
        name
        for name, agent in figures["agents"].items()
        if options.fail_under is not None and not agent["mean"] >= options.fail_under
    ]
    if low:
        write_error(f"error: fail_under={options.fail_under:g}: the mean of {', '.join(low)} is below")
    return (1 if low else 0), figures


def play(options: EvalOptions, overrides: list[str], *, place: str | None, key: str = "checkpoint") -> Played:
    """Play a checkpoint's policies; `place` is where what comes of it will be written, which is checked beforehand.

    `key` is what names the checkpoint, for errors. A signal cuts it short: `run.stop_signal` is set then.
    """
    overrides, plugins = load_plugins(overrides)
    if place is not None:
        _check_outside_runs(Path(place))
    first = hold_found(options.checkpoint, key=key)
    cfg = load_config(first.path, first.config)
    add_plugins(cfg, plugins)
    for override in overrides:
        name, _, value = override.partition("=")
        if not TAKEN.fullmatch(name):
            known = "env.*, backend.*, trainer.stochastic_evaluation, evaluation.max_episode_steps, run.dir, plugins and "
            known += ", ".join(OPTIONS)
            if configuration.is_known_key(name.lstrip("+")):
                raise ConfigError(name, value, f"is the checkpoint's; an evaluation takes {known}")
            raise ConfigError(name, value, f"no such option; {nearest(name, OPTIONS)}, env.*, backend.*, run.dir")
    cfg = configuration.apply_overrides(cfg, overrides, allowed_groups=("backend", "env"))
    cfg.run.dir, cfg.agents_scope.sizes = None, None
    config = configuration.check(cfg, training=False)
    held = hold_each(options.checkpoint, list(config.agents), first, key=key)
    if options.seed is not None:
        config.seed = options.seed
    if options.render:
        assemble.check_display("render", options.render)
    studio = find_studio(options.video, options.out, first.path, place)
    config.trainer.cfg.headless, config.trainer.cfg.fused = options.render is None, "auto"
    enabled = False if config.trainer.cfg.disable_progressbar else None
    run = Run(evaluation=config.evaluation, screen=Screen(enabled=enabled, total=0, copies=config.env.cfg.num_envs))
    assert config.seed is not None
    with studio.open(config), generators.seeded(seed64(config.seed, PROCESS_GENERATORS)):
        trainer = studio.make_trainer(config, render_mode=options.render, role=FINAL_EVALUATION_ENVIRONMENTS, run=run)
        trainer.generators.owned = True
        try:
            load_policies(trainer.agents, held)
            if place is not None:
                check_writable(place)
            trainer.evaluation_env = trainer.env
            with trainer.run.signals():
                results = trainer.eval(episodes=options.episodes)
                trained = {name: own.manifest.get("timestep") for name, own in held.items()}
                studio.film(trainer, options.episodes, results, trained)
                compare = options.random if options.random is not None else bool(trainer.env.members) and not options.render
                at_random = _play_at_random(trainer, options.episodes) if compare and trainer.run.stop_signal is None else {}
            return Played(run, config, first, held, results, at_random, trainer.env.info(), studio)
        finally:
            run.close()
            trainer.close()


def _check_returns(results: dict[str, dict[str, Any]]) -> None:
    """Raise NonFiniteError for returns of which no figure can be made; nothing was written."""
    for name, result in results.items():
        wrong = [value for value in result["returns"] if not math.isfinite(value)]
        if wrong:
            count = f"{len(wrong)} of {len(result['returns'])} episodes have a return that is not finite"
            raise NonFiniteError(f"agents.{name}: {count} ({wrong[0]}), so there are no figures; look at the rewards")


def _read(arguments: Sequence[str]) -> tuple[EvalOptions, list[str]]:
    """Split arguments into this command's options and overrides; a lone word is the checkpoint."""
    import yaml

    given: dict[str, Any] = {}
    overrides = []
    for argument in arguments:
        key, has_value, value = argument.partition("=")
        if key in OPTIONS and has_value:
            try:
                is_word = key in ("checkpoint", "render", "video", "out")
                given[key] = value.strip("'\"") if is_word else yaml.safe_load(configuration.plain_number(value))
            except yaml.YAMLError:
                raise ConfigError(key, value, "can't be read") from None
            if key == "fail_under":
                with suppress(ValueError):  # YAML takes 1e1 for text
                    given[key] = float(value)
            if given[key] in ("null", "none") and key == "render":
                given[key] = None
        elif not has_value or os.path.exists(argument):
            if "checkpoint" in given:
                raise ConfigError("checkpoint", argument, f"{given['checkpoint']} is given too; evaluate one at a time")
            given["checkpoint"] = argument
        else:
            overrides.append(argument)
    if "checkpoint" not in given:
        raise CommandError(["rltrain eval", *arguments], "say what to evaluate: a run's directory, RUN/best, or latest")
    return build(EvalOptions, given), overrides


def _play_at_random(trainer: Any, episodes: int) -> dict[str, dict[str, Any]]:
    """Return what random actions reach in each agent's copies, from the starts that it had."""
    trainer.agents = [RandomAgent(agent.name, trainer.env.action_space, agent.members) for agent in trainer.agents]
    return trainer.eval(episodes=episodes)


def _check_outside_runs(directory: Path) -> None:
    for parent in (directory.absolute(), *directory.absolute().parents):
        if holds_run(parent):
            raise ConfigError(
                "run.dir", directory, f"{parent} holds a run; an evaluation never writes into one: name another place"
            )


def write(played: Played, figures: dict[str, Any], options: EvalOptions, wanted: str | None) -> Path:
    """Write `eval.json` to `wanted`, or to a new directory; return that directory."""
    config, held, first = played.config, played.held, played.first
    directory = make_run_directory(wanted, config.env.cfg.id, list(config.agents), config.seed, root=RESULTS)
    paths = {name: one.path for name, one in held.items()}
    steps = {name: {key: one.manifest.get(key) for key in STEPS} for name, one in held.items()}
    one = len(set(paths.values())) == 1
    about = {
        "checkpoint": str(next(iter(paths.values()))) if one else {name: str(path) for name, path in paths.items()},
        **(next(iter(steps.values())) if one else {key: {name: step[key] for name, step in steps.items()} for key in STEPS}),
        "seed": config.seed,
        "episodes": options.episodes,
        "copies": config.env.cfg.num_envs,
        "max_episode_steps": config.evaluation.max_episode_steps,
        "deterministic": not config.trainer.cfg.stochastic_evaluation,
        "environment": {"id": config.env.cfg.id, **played.env_info},
        "trained_with": first.manifest.get("versions"),
    }
    saved = {**figures, "about": about, "episodes": played.results}
    try:
        checkpoints.replace_text(directory / "eval.json", json.dumps(conceal_tree(saved), indent=1) + "\n")
    except OSError as error:
        raise checkpoints.storage_error(f"run.dir={directory}", error) from None
    return directory


def _print(played: Played, figures: dict[str, Any], directory: Path) -> None:
    config = played.config
    columns = figures["agents"] | {f"{name} at random": agent for name, agent in figures.get("random", {}).items()}
    lines = []
    for key, label in LABELS.items():
        if any(key in agent for agent in columns.values()):
            none = 0 if key == "cut_episodes" else None
            lines.append([label, *(_shown(agent.get(key, none)) for agent in columns.values())])
    for name in dict.fromkeys(name for agent in columns.values() for name in agent.get("members", {})):
        means = (agent.get("members", {}).get(name, {}).get("mean") for agent in columns.values())
        lines.append([f"mean of {name}", *map(_shown, means)])
    how = "stochastic" if config.trainer.cfg.stochastic_evaluation else "deterministic"
    checkpoint = ", ".join(dict.fromkeys(str(one.path) for one in played.held.values()))
    print_out(
        f"{checkpoint} on {config.env.cfg.id}, {config.env.cfg.num_envs} copies, seed {config.seed}, {how}",
        table(["", *columns], lines),
        f"saved in {directory}/eval.json",
        *_videos(played.studio.videos),
    )


def _videos(videos: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return a line for every video: `best of ppo, return 500.00: RUN/videos/...mp4`."""
    return [
        f"{video['which']} of {agent}, return {video['return']:.2f}: {video['file']}"
        for agent, own in videos.items()
        for video in own
    ]


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " to ".join(_shown(item) for item in value)
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.2f}"

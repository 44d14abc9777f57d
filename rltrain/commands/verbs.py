"""The table of commands: what each is called, where it stands, and what its help says. Nothing heavy is imported."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rltrain import modules
from rltrain.commands.layout import pairs, width, wrap
from rltrain.errors import CommandError, closest, nearest

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Verb:
    """A command: a function that takes its arguments and returns the exit status."""

    name: str
    function: str  # module:function
    usage: tuple[str, ...]
    sentence: str
    options: Pairs
    examples: Pairs
    page: str
    settings: str = ""  # module:dataclass whose fields are options, too
    flags: tuple[str, ...] = ()

    def run(self, arguments: list[str]) -> int:
        """Run the command."""
        _refuse_flags(arguments, self)
        return _find(self.function)(arguments)

    def help(self, columns: int) -> list[str]:
        """Return the lines of its help."""
        options = [*self.options, *_fields_of(self.settings)]
        lines = ["usage:", *(f"  {line}" for line in self.usage), "", *wrap(self.sentence, columns)]
        if options:
            lines += ["", "options:", *pairs(options, columns)]
        lines += ["", "examples:"]
        for command, what in self.examples:
            lines += [*wrap(f"# {what}", columns, "  "), f"  {command}"]
        return [*lines, "", f"more: {self.page}"]


VERBS = {
    verb.name: verb
    for verb in (
        Verb(
            "train",
            "rltrain.commands.starting:start",
            ("rltrain train [OVERRIDE...] [--cfg job|resolved]", "rltrain train -m [OVERRIDE...]", "rltrain train --help KEY..."),
            "Train agents, PPO on CartPole-v1 unless told otherwise. An override is key=value, quoted where it holds brackets; "
            "rltrain config explains every key, rltrain list names what can be chosen.",
            (
                ("env=ID", "what to train on: a Gymnasium id, or module:Own-v0, whose module is imported first"),
                ("agents=NAME", "who trains: ppo, sac ...; [ppo,a2c] or [fast:ppo,slow:ppo] for several at once"),
                ("experiment=NAME", "a preset: environment, agents and their settings"),
                ("total_env_steps=N", "how long; 1e6 is a million steps of all copies together"),
                ("seed=N", "repeats a run exactly; without it one is drawn and printed"),
                ("trainer=NAME", "sequential, parallel (a process per agent) or step"),
                ("backend=NAME", "torch or jax"),
                ("run.dir=DIR", "where the run is written"),
                ("resume=RUN", "go on with a run where it stopped; with run.dir=DIR resume=auto start it or go on"),
                ("init_from=CHECKPOINT", "start from the weights of a checkpoint"),
                ("dry_run=true", "say what the run would be, train nothing"),
                ("plugins=[PACKAGE]", "import packages of your own first"),
                ("trust=true", "also import from the current directory what a saved configuration names"),
                ("-m, --multirun", "a sweep: a run for every combination of the values of a=1,2 b=x,y"),
                ("--cfg job|resolved", "print the configuration and stop; resolved: its references followed"),
            ),
            (
                ("rltrain train experiment=ppo_pendulum seed=1", "a tuned preset"),
                ("rltrain train env=Acrobot-v1 agents=dqn agents.dqn.learning_rate=3e-4", "a setting changed"),
            ),
            "docs/start.md",
            flags=("-m", "--multirun", "--cfg"),
        ),
        Verb(
            "eval",
            "rltrain.commands.evaluate:evaluate",
            ("rltrain eval RUN [OPTION...] [OVERRIDE...]", "rltrain eval checkpoint=RUN [OPTION...] [OVERRIDE...]"),
            "Play the policies of a checkpoint and print how they did. RUN is a run's directory (its latest checkpoint), "
            "RUN/best, a folder under its checkpoints/, or latest: the last run started here. Videos alone are written into it.",
            (
                ("env.*, backend.*", "overrides of the checkpoint's configuration; run.dir=DIR and plugins=[PACKAGE] too"),
                ("trust=true", "also import from the current directory what the checkpoint's configuration names"),
            ),
            (
                ("rltrain eval latest/best episodes=1000", "the best checkpoint of the last run"),
                ("rltrain eval checkpoint=outputs/latest json=true fail_under=475", "JSON, and exit status 1 below 475"),
            ),
            "docs/evaluate.md",
            settings="rltrain.commands.evaluate:EvalOptions",
        ),
        Verb(
            "runs",
            "rltrain.commands.runs:runs",
            ("rltrain runs [DIR...] [FILTER...] [sort=KEY] [json=true]", "rltrain runs prune [DIR...] [OPTION...]"),
            "List the runs below directories, outputs without any: what each trains, how far it is, its state and returns. A "
            "filter takes patterns, as in env=CartPole*, or several, as in state=failed,stopped.",
            (
                ("env=PATTERN", "runs on this environment"),
                ("agents=PATTERN", "runs with an agent of this name or algorithm"),
                ("backend=PATTERN", "torch or jax"),
                ("seed=PATTERN", "runs of this seed"),
                ("state=PATTERN", "running, finished, stopped (by a signal), failed or unfinished (killed)"),
                (
                    "sort=age",
                    "id, env, agents, backend, seed, progress, state, return, best, speed, size; sort=-age the other way",
                ),
                ("json=true", "the same and more as JSON"),
            ),
            (
                ("rltrain runs state=running", "what goes on"),
                ("rltrain runs outputs/multirun sort=best", "the jobs of sweeps, the best first"),
            ),
            "docs/runs.md",
        ),
        Verb(
            "runs prune",
            "rltrain.commands.prune:prune",
            ("rltrain runs prune [DIR...] [FILTER...] [keep=N] [dry_run=true] [yes=true]",),
            "Delete old checkpoints of the runs below directories, outputs without any: shows which, and what that frees, then "
            "asks. The latest, every best and the newest that verifies stay, and all of a run that goes on.",
            (
                ("keep=1", "how many of the newest stay in any case, latest among them"),
                ("dry_run=true", "only show what would go"),
                ("yes=true", "delete without asking"),
                ("env=, agents=, backend=, seed=, state=", "which runs, as for rltrain runs"),
            ),
            (
                ("rltrain runs prune dry_run=true", "what there is to gain"),
                ("rltrain runs prune outputs/multirun state=finished yes=true", "of the jobs of sweeps that are done"),
            ),
            "docs/runs.md",
        ),
        Verb(
            "report",
            "rltrain.commands.report:report",
            ("rltrain report RUN... [OPTION...]",),
            "Compare runs: those that differ in nothing but the seed are one group. Writes pictures of "
            "curves and of final scores with intervals, a page in HTML and Markdown, and the data. RUN is a run's directory, or "
            "one that holds runs, such as a sweep's; they may still be running.",
            (),
            (
                ("rltrain report outputs/multirun/SWEEP out=report", "a sweep, its seeds in groups"),
                ("rltrain report A B compare=[ppo,a2c] x=wall_time", "two groups against each other"),
            ),
            "docs/report.md",
            settings="rltrain.commands.report:ReportOptions",
        ),
        Verb(
            "export",
            "rltrain.commands.export:export",
            ("rltrain export RUN FILE.onnx|FILE.pt2|FILE.stablehlo [OPTION...]",),
            "Write a policy as a file that acts without rltrain: observations as the environment gives them in, actions as it "
            "takes them out. The file is compared with the policy before it is there.",
            (
                ("agent=NAME", "which one, where a run has several agents"),
                ("rows=N", "observations of the environment to compare on; 1000"),
                ("env.*, plugins=[PACKAGE]", "overrides of the checkpoint's configuration"),
                ("trust=true", "also import from the current directory what the checkpoint's configuration names"),
            ),
            (
                ("rltrain export outputs/latest policy.onnx", "for ONNX Runtime, with a script that runs it"),
                ("rltrain export outputs/latest/best policy.stablehlo", "the best policy, for JAX and whatever reads StableHLO"),
            ),
            "docs/export.md",
        ),
        Verb(
            "checkpoint verify",
            "rltrain.commands.show:checkpoint_verify",
            ("rltrain checkpoint verify PATH",),
            "Check every byte of a checkpoint against its manifest: exit status 0 if all are right, else 3. PATH is a checkpoint "
            "or a run, as for rltrain eval.",
            (),
            (
                ("rltrain checkpoint verify outputs/latest", "the latest checkpoint of the last run"),
                ("rltrain checkpoint verify outputs/latest/best", "its best one"),
            ),
            "docs/resume.md",
        ),
        Verb(
            "checkpoint show",
            "rltrain.commands.show:checkpoint_show",
            ("rltrain checkpoint show PATH",),
            "Print the manifest of a checkpoint as JSON: agents, timestep, versions, files with sizes and hashes, and whether a "
            "resume from it is exact.",
            (),
            (
                ("rltrain checkpoint show outputs/latest", "the latest checkpoint of the last run"),
                ("rltrain checkpoint show outputs/latest/best", "its best one"),
            ),
            "docs/resume.md",
        ),
        Verb(
            "checkpoint export",
            "rltrain.commands.transitions:export",
            ("rltrain checkpoint export PATH FILE [agent=NAME]",),
            "Write the replay memory of an agent to FILE.npz or FILE.parquet. The run needs checkpoints.memory=true.",
            (
                ("agent=NAME", "whose memory, where a run has several agents"),
                ("plugins=[PACKAGE]", "import packages of your own first"),
                ("trust=true", "also import from the current directory what the checkpoint's configuration names"),
            ),
            (
                ("rltrain checkpoint export outputs/latest transitions.npz", "for NumPy"),
                ("rltrain checkpoint export outputs/latest transitions.parquet agent=sac", "one of several agents"),
            ),
            "docs/resume.md",
        ),
        Verb(
            "list",
            "rltrain.commands.choices:list_choices",
            ("rltrain list agents|trainers|backends|experiments|envs [WORD...] [json=true]",),
            "Print what can be chosen, a sentence for each. A WORD keeps the lines that hold it. Of envs, a first word such as "
            "gymnax or mujoco chooses a group.",
            (
                ("json=true", "the same as JSON"),
                ("plugins=[PACKAGE]", "import packages of your own first: their choices are listed, too"),
            ),
            (
                ("rltrain list agents", "the algorithms: which actions, on- or off-policy, teams"),
                ("rltrain list envs mujoco", "one group of environments; rltrain list envs Cart searches in all"),
            ),
            "docs/environments.md",
        ),
        Verb(
            "config",
            "rltrain.commands.settings:settings",
            ("rltrain config [KEY...] [OVERRIDE...]",),
            "Explain settings: key, value, range or choices, and a sentence. Without KEY it lists the sections; a section gives "
            "a table, a key everything about it, any other word searches keys and sentences. With overrides the values are those "
            "that rltrain train would use.",
            (
                ("json=true", "the same as JSON"),
                ("plugins=[PACKAGE]", "import packages of your own first"),
            ),
            (
                ("rltrain config agents.ppo", "all settings of PPO"),
                ("rltrain config experiment=sac_pendulum agents.sac.learning_rate", "one key, with a preset's value"),
            ),
            "docs/configuration.md",
        ),
        Verb(
            "completion",
            "rltrain.commands.completion:completion",
            ("rltrain completion bash|zsh|fish",),
            "Print a script with which the shell completes commands, choices, keys and runs.",
            (),
            (
                ('eval "$(rltrain completion bash)"', "for this shell; in ~/.bashrc for all; zsh: likewise, ~/.zshrc"),
                ("rltrain completion fish > ~/.config/fish/completions/rltrain.fish", "for fish"),
            ),
            "docs/start.md",
        ),
    )
}
SUMMARIES = {
    "train": "train agents; by default PPO on CartPole-v1",
    "eval": "play a checkpoint's policies, print how they did",
    "runs": "a table of runs; prune: delete old checkpoints",
    "report": "compare runs: pictures, intervals, a page",
    "export": "a policy as a file that acts without rltrain",
    "checkpoint": "verify, show or export a checkpoint",
    "list": "agents, trainers, backends, experiments, envs",
    "config": "explain settings: value, range, sentence",
    "completion": "a script that completes words in your shell",
    "help": "usage, options and examples of one of these",
}
OVERVIEW = """\
rltrain: train and evaluate reinforcement learning agents

{verbs}

examples:
  rltrain train                                     PPO on CartPole-v1
  rltrain train experiment=ppo_acrobot seed=1       a tuned preset
  rltrain train env=Pendulum-v1 agents=sac agents.sac.learning_rate=3e-4
  rltrain train -m seed=1,2,3                       a sweep
  rltrain train resume=RUN                          go on where a run stopped
  rltrain eval RUN episodes=100                     evaluate a checkpoint
  rltrain config agents.ppo                         what can be set

overrides, written key=value ('quoted' where they hold brackets):
  env=CartPole-v1  env.num_envs=8  env=my_package:Own-v0  env.kwargs.gravity=3
  agents=ppo  agents.ppo.learning_rate=3e-4  total_env_steps=100000  seed=1
  evaluation.interval=2000  checkpoints.interval=2000  run.dir=DIR  dry_run=true

flags:
  --cfg job|resolved   of train: print the configuration and stop
  -m, --multirun       of train: a sweep
  --debug              tracebacks for every error
  --version, --help
"""
USAGES = {
    "train": "rltrain train",
    "eval": "rltrain eval RUN",
    "runs": "rltrain runs [DIR]",
    "report": "rltrain report RUN...",
    "export": "rltrain export RUN FILE",
    "checkpoint": "rltrain checkpoint VERB PATH",
    "list": "rltrain list WHAT",
    "config": "rltrain config [KEY]",
    "completion": "rltrain completion SHELL",
    "help": "rltrain help VERB",
}


def find_verb(arguments: Sequence[str]) -> tuple[Verb, list[str]]:
    """Return the command that arguments begin with, and the rest of them.

    Raises CommandError for an unknown one.
    """
    first, second = (*arguments, "", "")[:2]
    if first in VERBS and f"{first} {second}" not in VERBS:
        return VERBS[first], list(arguments[1:])
    subcommands = [name.partition(" ")[2] for name in VERBS if name.startswith(f"{first} ")]
    if second in subcommands:
        return VERBS[f"{first} {second}"], list(arguments[2:])
    if subcommands and second:
        raise CommandError(["rltrain", *arguments], f"no such command; {nearest(second, subcommands)}")
    if subcommands:
        raise CommandError(["rltrain", *arguments], f"say what to do; {nearest('', subcommands)}")
    remedy = f"did you mean 'rltrain train {first}'?" if "=" in first else nearest(first, SUMMARIES)
    raise CommandError(["rltrain", first], f"no such command; {remedy}")


def help_text(arguments: Sequence[str]) -> str:
    """Return the help of the command that arguments begin with; without any, the overview."""
    names = [argument for argument in arguments if not argument.startswith("-")]
    if not names or names == ["help"]:
        return OVERVIEW.format(verbs="\n".join(f"  {USAGES[name]:<30}{text}" for name, text in SUMMARIES.items()))
    columns = width()
    group = [verb for name, verb in VERBS.items() if name.startswith(f"{names[0]} ")]
    if group and len(names) == 1 and names[0] not in VERBS:
        lines = [line for verb in group for line in (*verb.usage, *wrap(verb.sentence, columns, "    "), "")]
        return "\n".join([*lines, f"rltrain help {group[0].name}: its options and examples", ""])
    verb, _ = find_verb(names)
    return "\n".join([*verb.help(columns), ""])


def _refuse_flags(arguments: Sequence[str], verb: Verb) -> None:
    for argument in arguments:
        if argument.startswith("-") and argument not in verb.flags:
            key, has_value, value = argument.lstrip("-").partition("=")
            instead = f"settings have no dashes: {key}={value if has_value else 'VALUE'}; " if len(key) > 1 else ""
            meant = closest(argument, [*verb.flags, "--cfg", "--help", "--debug"])
            instead = f"did you mean {meant}? " if meant else instead
            raise CommandError([argument], f"unknown flag; {instead}see rltrain help {verb.name}")


def _fields_of(place: str) -> list[tuple[str, str]]:
    if not place:
        return []
    return [(f"{f.name}={_shown(f)}", f.metadata["doc"]) for f in dataclasses.fields(_find(place))]  # type: ignore[arg-type]


def _shown(field: dataclasses.Field) -> str:
    default = field.default
    return "null" if default is None else str(default).lower() if isinstance(default, bool) else str(default)


def _find(place: str) -> Callable[..., int]:
    module, _, name = place.partition(":")
    return getattr(modules.import_named(module, "command", place), name)

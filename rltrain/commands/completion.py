"""`rltrain completion`: a script that completes words in a shell. It holds the words, so that pressing Tab starts no program."""

import re
from collections.abc import Sequence

from rltrain import __version__
from rltrain import config as configuration
from rltrain.commands import environments
from rltrain.commands.choices import LISTS
from rltrain.commands.evaluate import OPTIONS
from rltrain.commands.export import OPTIONS as EXPORT_OPTIONS
from rltrain.commands.prune import OPTIONS as PRUNE_OPTIONS
from rltrain.commands.report import OPTIONS as REPORT_OPTIONS
from rltrain.commands.runs import OPTIONS as RUNS_OPTIONS
from rltrain.commands.verbs import SUMMARIES, VERBS
from rltrain.config.reference import entries
from rltrain.errors import CommandError, nearest
from rltrain.screen import write_out

# Both shells: `found` gets what `cur`, the word at the cursor, may become; $1 is the command, $2 the word before `cur`.
SHARED = """\
_rltrain_keys=({keys})
_rltrain_values=({values})

_rltrain_find() {
  local word rest value base=""
  found=()
  case "$1 $cur" in
    train\\ resume=*|train\\ init_from=*|train\\ run.dir=*) base="${cur%%=*}=" ;;
  esac
  if [[ -n $base || $1 == eval || $1 == runs || $1 == report || $1 == export || $1 == checkpoint ]]; then
    value="${cur#"$base"}"
    for word in latest latest/best; do
      [[ $base == run.dir= || $1 == checkpoint && $2 == checkpoint ]] || [[ $word != "$value"* ]] || found+=("$base$word")
    done
    [[ $1 == checkpoint && $2 == checkpoint ]] || for word in $(_rltrain_directories "$value"); do found+=("$base$word"); done
    [[ -z $base ]] || return 0
  fi
  case "$1" in
    "") for word in {verbs}; do [[ $word != "$cur"* ]] || found+=("$word "); done; return 0 ;;
    checkpoint)
      [[ $2 != checkpoint ]] || for word in {checkpoint}; do [[ $word != "$cur"* ]] || found+=("$word "); done
      return 0 ;;
    list) [[ $2 != list ]] || for word in {lists}; do [[ $word != "$cur"* ]] || found+=("$word "); done; return 0 ;;
    completion) for word in bash zsh fish; do [[ $word != "$cur"* ]] || found+=("$word "); done; return 0 ;;
    help) for word in {verbs}; do [[ $word != "$cur"* ]] || found+=("$word "); done; return 0 ;;
    runs)
      [[ $2 != runs || prune != "$cur"* ]] || found+=("prune ")
      for word in {runs}; do [[ $word != "$cur"* ]] || found+=("$word"); done
      return 0 ;;
    report) for word in {report}; do [[ $word != "$cur"* ]] || found+=("$word"); done; return 0 ;;
    export) for word in {export}; do [[ $word != "$cur"* ]] || found+=("$word"); done; return 0 ;;
    eval) for word in {eval}; do [[ $word != "$cur"* ]] || found+=("$word"); done ;;
    train|config) ;;
    *) return 0 ;;
  esac
  if [[ $cur == *=* ]]; then
    for word in "${_rltrain_values[@]}"; do [[ $word != "$cur"* ]] || found+=("$word "); done
    return 0
  fi
  local last="" end="="
  [[ $1 != config ]] || end=" "
  for word in "${_rltrain_keys[@]}"; do
    [[ $1 != eval || $word == env.* || $word == backend* ]] || continue
    [[ $word == "$cur"* ]] || continue
    rest="${word#"$cur"}"
    if [[ $rest == *.* ]]; then word="$cur${rest%%.*}."; else word="$word$end"; fi
    [[ $word == "$last" ]] || found+=("$word")
    last="$word"
  done
}
"""
BASH = """\
_rltrain_directories() { compgen -d -S / -- "$1"; }

_rltrain() {
  local line="${COMP_LINE:0:COMP_POINT}" cur found verb="" before
  cur="${line##* }"
  local words=(${line% *})
  [[ $line != *" "* ]] || { verb="${words[1]:-}"; before="${words[${#words[@]}-1]}"; }
  _rltrain_find "$verb" "$before"
  [[ $cur != *=* || $COMP_WORDBREAKS != *=* ]] || found=("${found[@]#"${cur%%=*}="}")
  COMPREPLY=("${found[@]}")
}
complete -o nospace -F _rltrain rltrain
"""
ZSH = """\
_rltrain_directories() { local one; for one in "$1"*(N-/); do print -r -- "$one/"; done }

_rltrain() {
  local cur="$PREFIX" verb="" before="${words[CURRENT-1]}"
  local -a found
  (( CURRENT < 3 )) || verb="${words[2]}"
  _rltrain_find "$verb" "$before"
  compadd -Q -S '' -- "${found[@]}"
}
compdef _rltrain rltrain
"""


def completion(arguments: Sequence[str]) -> int:
    """Print the script of a shell."""
    scripts = {"bash": _bash, "zsh": _zsh, "fish": _fish}
    if len(arguments) != 1 or arguments[0] not in scripts:
        raise CommandError(["rltrain", "completion", *arguments], f"name a shell; {nearest((*arguments, '')[0], scripts)}")
    write_out(f"# rltrain {__version__}: completion for {arguments[0]}\n{scripts[arguments[0]]()}")
    return 0


def _words() -> dict[str, list[str]]:
    """Return what the scripts know, by kind."""
    known = entries()
    keys = sorted({entry.key for entry in known})
    values = {f"{entry.key}={value}" for entry in known for value in _values(entry.allowed)}
    groups = ("trainer", "backend", "env", "agents", "experiment")
    values |= {f"{group}={name}" for group in groups for name in configuration.options(group)}
    values |= {f"env={one}" for family in environments.families() if family.choose.startswith("env=ID") for one in family.ids}
    return {
        "keys": keys,
        "values": sorted(values),
        "verbs": sorted(SUMMARIES),
        "lists": sorted(LISTS),
        "eval": [f"{name}=" for name in OPTIONS],
        "report": [f"{name}=" for name in REPORT_OPTIONS],
        "export": [f"{name}=" for name in EXPORT_OPTIONS],
        "runs": [f"{name}=" for name in dict.fromkeys((*RUNS_OPTIONS, *PRUNE_OPTIONS))],
        "checkpoint": [name.partition(" ")[2] for name in VERBS if name.startswith("checkpoint ")],
    }


def _values(allowed: str) -> list[str]:
    """Return the words that a setting may have, where they are few."""
    if "true or false" in allowed:
        return ["true", "false"]
    found = re.search(r"one of ([\w-]+(?:, [\w-]+)*)", allowed)
    return found[1].split(", ") if found else []


def _shared() -> str:
    text = SHARED
    for name, words in _words().items():
        text = text.replace(f"{{{name}}}", " ".join(words))
    return text


def _bash() -> str:
    return _shared() + BASH


def _zsh() -> str:
    return _shared() + ZSH


def _fish() -> str:
    words = _words()
    lines = ["complete -c rltrain -f"]

    def offer(condition: str, offered: Sequence[str]) -> None:
        lines.append(f"complete -c rltrain -n '{condition}' -a '{' '.join(offered)}'")

    offer("__fish_use_subcommand", words["verbs"])
    offer("__fish_seen_subcommand_from train config", [*(f"{key}=" for key in words["keys"]), *words["values"]])
    offer("__fish_seen_subcommand_from config", words["keys"])
    offer("__fish_seen_subcommand_from eval", ["latest", "latest/best", *words["eval"]])
    offer("__fish_seen_subcommand_from report", words["report"])
    offer("__fish_seen_subcommand_from export", words["export"])
    offer("__fish_seen_subcommand_from runs", ["prune", *words["runs"]])
    offer("__fish_seen_subcommand_from checkpoint", words["checkpoint"])
    offer("__fish_seen_subcommand_from list", words["lists"])
    offer("__fish_seen_subcommand_from completion", ["bash", "zsh", "fish"])
    offer("__fish_seen_subcommand_from help", words["verbs"])
    takers = "eval runs report export checkpoint"
    lines.append(f"complete -c rltrain -n '__fish_seen_subcommand_from {takers}' -a '(__fish_complete_directories)'")
    return "\n".join([*lines, ""])

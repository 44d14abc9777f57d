"""`rltrain train` with its flags: a run, a sweep, or the configuration."""

from rltrain.errors import CommandError

MULTIRUN = ("-m", "--multirun")


def start(arguments: list[str]) -> int:
    """Do what the flags say, and return the exit status."""
    overrides = [argument for argument in arguments if argument not in MULTIRUN]
    multirun = len(overrides) < len(arguments)
    shown = None
    if "--cfg" in overrides:
        at = overrides.index("--cfg")
        shown = (*overrides[at + 1 :], "")[0]
        if shown not in ("job", "resolved"):
            raise CommandError(["--cfg", shown], "write --cfg job or --cfg resolved")
        del overrides[at : at + 2]
    if multirun and shown is not None:
        raise CommandError(["--cfg", shown], "shows one run; leave -m out")
    if multirun:
        from rltrain.commands.sweep import sweep

        return sweep(overrides)
    from rltrain.commands import train

    if shown is None:
        return train.train(overrides)
    train.show_config(overrides, resolved=shown == "resolved")
    return 0

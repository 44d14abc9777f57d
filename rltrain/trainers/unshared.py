"""State of wrappers that evaluations can't share with training, found by looking: it is said once, by name."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rltrain.trainers.base import Trainer

Marks = dict[str, str]  # of one copy, by wrapper and attribute
SHOWN = 3  # attributes by name


class Unshared:
    """Looks at what wrappers hold, in an evaluation environment of its own.

    Said is what a reset doesn't bring back after the first evaluation's episodes; and what that evaluation never moved, as a
    curriculum's level, where all of training's copies hold something else.
    """

    def __init__(self) -> None:
        self.start: list[Marks] | None = None  # after the reset that the first evaluation begins with
        self.moved: set[str] = set()  # what that evaluation or a reset changed
        self.watches = True  # that evaluation

    def begin(self, trainer: "Trainer") -> None:
        """Look after the reset that an evaluation begins with."""
        if trainer.evaluation_env is None or self.start == []:
            return
        if self.watches:
            self.start, self.moved = trainer.evaluation_env.wrapper_marks(), set()
        else:
            self._compare(trainer)

    def turn(self, trainer: "Trainer", turn: int) -> None:
        """Look after turns 1, 2, 4, 8 and so on of the first evaluation."""
        if self.watches and self.start and turn & (turn + 1) == 0:
            self.moved |= self._look(trainer)

    def end(self, trainer: "Trainer") -> None:
        """Look after the last episode of the first evaluation, and after two resets."""
        if not self.watches or not self.start:
            return
        self.watches, env = False, trainer.evaluation_env
        self.moved |= self._look(trainer)
        env.reset()  # type: ignore[union-attr]
        self.moved |= self._look(trainer)
        env.reset(seed=env.seeds)  # type: ignore[union-attr]
        _say(trainer, self._look(trainer))
        self._compare(trainer)

    def _look(self, trainer: "Trainer") -> set[str]:
        return _differing(self.start or [], trainer.evaluation_env.wrapper_marks(), any)  # type: ignore[union-attr]

    def _compare(self, trainer: "Trainer") -> None:
        """Compare with training's copies, where they are in this process's hands."""
        if trainer.timestep and trainer.env is not trainer.evaluation_env and not trainer.env_is_elsewhere():
            _say(trainer, _differing(self.start or [], trainer.env.wrapper_marks(), all) - self.moved)


def _differing(one: list[Marks], other: list[Marks], quantifier: Callable[[Iterable[bool]], bool]) -> set[str]:
    """Return what differs in any copy, or in all."""
    names = {name for copy in one for name in copy}
    return {name for name in names if quantifier(a.get(name) != b.get(name) for a, b in zip(one, other, strict=True))}


def _say(trainer: "Trainer", found: set[str]) -> None:
    if not found:
        return
    names = sorted(found)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    trainer._say_once(
        f"evaluation begins without what {', '.join(names[:SHOWN])}{more} gathers over episodes in training; "
        "share it by policy_state() and set_policy_state(state) of the wrapper, or reset it with each episode"
    )

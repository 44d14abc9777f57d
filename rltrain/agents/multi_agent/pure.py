"""A team as one pure algorithm for the fused loop: its groups' pure algorithms side by side, state and memory by group.

What `MultiAgent` does with arrays on the host is done here with the same functions of `Group` inside a compiled program.
"""

from typing import Any

from rltrain.agents.multi_agent.groups import Group
from rltrain.structures import Acting, Array, Arrays, Progress, UpdateSchedule

ByGroup = dict[str, Any]


class PureTeam:
    """Acts, records and learns for all groups; `parts` are their pure algorithms."""

    reward_function: Any = None  # the team's

    def __init__(
        self, groups: dict[str, Group], parts: ByGroup, schedule: UpdateSchedule, num_envs: int, *, central: bool
    ) -> None:
        self.groups, self.parts, self.schedule, self.num_envs, self.central = groups, parts, schedule, num_envs, central
        self.remembers = any(part.remembers for part in parts.values())

    # -- acting --------------------------------------------------------------------------------------------------------

    def policy(self, state: ByGroup) -> ByGroup:
        """Return what acting needs."""
        return {name: part.policy(state[name]) for name, part in self.parts.items()}

    def reset_carry(self, carry: ByGroup, done: Arrays) -> ByGroup:
        """Return what is carried, begun anew where an episode ended: that of a copy, or by member."""
        return {name: self.parts[name].reset_carry(carry[name], group.flags(done)) for name, group in self.groups.items()}

    def draw(self, keys: ByGroup, timestep: Array) -> ByGroup:
        """Return the random numbers that one step of acting takes."""
        return {name: part.draw(keys[name], timestep) for name, part in self.parts.items()}

    def act(
        self,
        policy: ByGroup,
        actor: Acting,
        observations: Arrays,
        states: Arrays = None,
        action_masks: dict[str, Array] | None = None,
        *,
        explore: bool,
        progress: Progress,
    ) -> tuple[Acting, dict[str, Array], dict[str, Array]]:
        """Return the next actor, actions by member (N, *A), and what `record` wants."""
        carry: ByGroup = {}
        actions: dict[str, Array] = {}
        outputs: dict[str, Array] = {}
        for name, group in self.groups.items():
            masked = action_masks is not None and group.members[0] in action_masks
            masks = group.rows(action_masks) if masked else None  # type: ignore[arg-type]
            one, rows = Acting(actor.carry[name], actor.noise[name]), group.observations(observations)
            one, chosen, wanted = self.parts[name].act(policy[name], one, rows, None, masks, explore=explore, progress=progress)
            carry[name] = one.carry
            actions |= group.split(chosen)
            outputs |= {f"{name}/{key}": value for key, value in wanted.items()}
        return Acting(carry), actions, outputs

    # -- learning ------------------------------------------------------------------------------------------------------

    def init_memory(self, row: Any) -> ByGroup:
        """Return memories without any row, for rows like this one."""
        return {name: part.init_memory(self._read(name, row)) for name, part in self.parts.items()}

    def record(self, memory: ByGroup, row: Any, timestep: Array) -> ByGroup:
        """Return the memories with the row of a timestep in its place."""
        return {name: part.record(memory[name], self._read(name, row), timestep) for name, part in self.parts.items()}

    def update(self, state: ByGroup, memory: ByGroup, progress: Progress) -> tuple[ByGroup, ByGroup, ByGroup]:
        """Learn in every group; return the state, metrics and which of them there are."""
        each = {name: part.update(state[name], memory[name], progress) for name, part in self.parts.items()}
        after, metrics, present = ({name: own[i] for name, own in each.items()} for i in range(3))
        return after, metrics, present

    def is_finite(self, state: ByGroup) -> ByGroup:
        """Tell whether every parameter of each group is finite."""
        return {name: part.is_finite(state[name]) for name, part in self.parts.items()}

    def operations(self) -> float:
        """Return about how many sums and products learning takes per timestep."""
        return sum(part.operations() for part in self.parts.values())

    def _read(self, name: str, row: Any) -> Any:
        return self.groups[name].read(name, row, central=self.central)

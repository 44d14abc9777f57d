"""Workers that each own an agent while the parent steps the one environment: one wake-up per worker and timestep.

What an agent records of a timestep and what it acts on next come with the same wake-up, so that a worker learns while the others
do and the parent waits once. Arrays go through shared memory; nothing is pickled unless an algorithm reads `infos`.

Agents that share a memory each hold all of it: every worker writes all their rows, before it learns, so that none waits for
another. What an agent acted by is on the board twice, by turns: the next is written while others read the last.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rltrain import generators
from rltrain.agents.base import Agent
from rltrain.envs.base import EnvWrapper
from rltrain.spaces import map_arrays
from rltrain.structures import Arrays, Transition
from rltrain.trainers.scopes import cut_infos
from rltrain.trainers.sharing import shares_memory
from rltrain.trainers.workers.board import ACT, RECORD, Board, Slot, slots_like
from rltrain.trainers.workers.crew import Crew
from rltrain.trainers.workers.process import Desk
from rltrain.trainers.workers.recipes import AgentRecipe

TICK = 0.1  # seconds between looks at whether the others still live
RECORDED = ("rewards", "terminated", "truncated", "valid", "next_observations", "next_states")
EXACT = "exact_rewards"


@dataclass
class LockstepJob:
    """Acts, records and learns when woken."""

    agent: AgentRecipe
    scope: slice
    on_device: bool  # the environment hands out arrays of the backend
    stream: int | None = None  # the seed of the generators that its whole process shares
    sharers: dict[int, tuple[int, slice]] = field(default_factory=dict)  # who else records into its memory: part, who, copies

    def run(self, desk: Desk) -> None:
        """Serve the parent until it ends this process."""
        self.desk, self.board = desk, desk.extra
        if self.stream is not None:
            generators.seed(self.stream)
        self.made = self.agent.make()
        self.made.environment = None  # the parent's to know, which has the environment
        self.infos: dict[str, Any] = {}
        self.observations: Arrays = None
        self.states: Arrays = None
        self.actions: Any = None
        self.others: dict[int, Arrays] = {}  # observations that sharers acted on, by part
        while True:
            desk.enter("wait")
            message = desk.channel.receive()
            if message is None:
                self._take_turn()
                desk.channel.wake_up()
            elif message[0] == "infos":
                self.infos = message[1]
            else:
                desk.enter("restore")
                desk.tell("answer", getattr(self, f"_{message[0]}")(*message[1:]))

    def _take_turn(self) -> None:
        """Record and learn from the last timestep, then act in the next: whichever was asked for."""
        flags, timestep, timesteps = self.board.called()
        agent, desk, read = self.made, self.desk, self.board.read
        when = {"timestep": timestep - 1, "timesteps": timesteps}
        if flags & RECORD:
            desk.pulse.reach(desk.index, timestep - 1)
            desk.enter("record_transition")
            recorded = {name: read(name, self.scope) for name in RECORDED}
            agent.exact_rewards = read(EXACT, self.scope)
            agent.record_transition(
                observations=self.observations, states=self.states, actions=self.actions, infos=self.infos, **recorded, **when
            )
            self.infos = {}
            self._record_others(**when)
            desk.enter("post_interaction")
            agent.post_interaction(**when)
        if flags & ACT:
            when["timestep"] = timestep
            desk.pulse.reach(desk.index, timestep)
            desk.enter("pre_interaction")
            agent.pre_interaction(**when)
            desk.enter("act")
            self.observations, self.states = read("observations", self.scope), read("states", self.scope)
            masks = read("action_masks", self.scope)
            if self.on_device:
                put = agent.backend.on_device
                self.observations = map_arrays(put, self.observations)
                self.states = None if self.states is None else map_arrays(put, self.states)
                masks = None if masks is None else map_arrays(put, masks)
            self.actions = agent.act(self.observations, self.states, masks, **when)
            self.board.write(f"actions/{desk.index}", self.actions)
            self._show_outputs(timestep)

    def _record_others(self, timestep: int, timesteps: int) -> None:
        """Record what the agents did that share this one's memory."""
        for part, (index, scope) in self.sharers.items():
            recorded = {name: self.board.read(name, scope) for name in RECORDED}
            function = self.made.reward_function
            if function is not None:  # theirs too
                recorded["rewards"] = function.shape(recorded["rewards"], timestep, timesteps, {}, on_device=self.on_device)
            outputs = self.board.read(_outputs(index, timestep))
            row = Transition(observations=self.others[part], states=None, actions=None, infos={}, outputs=outputs, **recorded)
            self.made.algorithm.memory.ring.record(row, part)

    def _show_outputs(self, timestep: int) -> None:
        """Put what the agent acted by where those can read it that share its memory; keep what they act on."""
        if self.sharers:
            self.board.write(_outputs(self.desk.index, timestep), self.made.read_outputs())
            self.others = {part: self.board.read("observations", scope) for part, (_, scope) in self.sharers.items()}

    def _ready(self) -> None:
        """Answer, when everything is made."""

    def _call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.sharers and method in ("interrupt", "start_over"):
            self.made.algorithm.memory.ring.interrupt()  # the others are told, too
        return getattr(self.made, method)(*args, **kwargs)

    def _snapshot(self) -> Any:
        return self.made.snapshot()

    def _policy(self) -> Any:
        return self.made.algorithm.snapshot()["policy"]

    def _bookkeeping(self) -> Any:
        """Return it for a row of metrics, which empties the sums, and the seconds spent on compiling."""
        kept = self.made.read_bookkeeping()
        self.made.read_metrics()
        return kept, self.made.backend.compile_seconds


class Lockstep:
    """The parent's side: stands for the agents' methods."""

    def __init__(self, crew: Crew, agents: list[Agent], scopes: list[slice], env: EnvWrapper, observations: Arrays) -> None:
        self.crew, self.agents, self.scopes = crew, agents, scopes
        states, masks, copies = env.state(), env.action_masks(), env.num_envs
        slots = {**slots_like(observations, "observations"), **slots_like(observations, "next_observations")}
        slots |= {**slots_like(states, "states"), **slots_like(states, "next_states"), **slots_like(masks, "action_masks")}
        members = [f"/{name}" for name in env.members] or [""]  # a slot per member, where there are any
        slots |= {f"{name}{member}": Slot((copies,)) for name in (*RECORDED[:4], EXACT) for member in members}
        for i, scope in enumerate(scopes):
            for member in members:
                space = env.action_space[member[1:]] if member else env.action_space
                slots[f"actions/{i}{member}"] = Slot((scope.stop - scope.start, *tuple(space.shape or ())))
            if shares_memory(agents[i]):
                slots |= _output_slots(i, scope.stop - scope.start, env.action_space, masks)
        self.board = Board(slots)
        self._owed = 0  # RECORD: a timestep that the workers have not recorded yet
        self._timestep = self._timesteps = 0
        self._reads_infos = [getattr(agent, "reads_infos", True) for agent in agents]

    def act(self, observations: Arrays, states: Arrays, masks: Any, timestep: int, timesteps: int) -> list[Any]:
        """Have every agent record the last timestep and act; return their actions."""
        board = self.board
        board.write("observations", observations)
        board.write("states", states)
        board.write("action_masks", masks)
        self._wake(self._owed | ACT, timestep, timesteps)
        return [board.read(f"actions/{i}") for i in range(len(self.agents))]

    def record(self, *, infos: dict[str, Any], timestep: int, timesteps: int, **arrays: Any) -> None:
        """Keep what happened for the next wake-up."""
        for name in RECORDED:
            self.board.write(name, arrays[name])
        if infos:
            for index, scope in enumerate(self.scopes):
                if self._reads_infos[index]:
                    self.crew.send(index, ("infos", cut_infos(infos, scope, self.scopes[-1].stop)))
        self._owed, self._timestep, self._timesteps = RECORD, timestep, timesteps

    def ask(self, kind: str, *contents: Any) -> list[Any]:
        """Ask every worker, after it has recorded and learned what there was; `contents` hold one item per worker each."""
        if self._owed:
            self._wake(self._owed, self._timestep + 1, self._timesteps)
        workers = range(len(self.agents))
        for index in workers:
            self.crew.send(index, (kind, *(content[index] for content in contents)))
        answers: dict[int, Any] = {}
        while len(answers) < len(self.agents):
            answers |= {index: message[1] for index, message in self.crew.wait(TICK)}
        return [answers[index] for index in workers]

    def call(self, method: str, args: list[Any], kwargs: list[Any]) -> list[Any]:
        """Call a method of every agent."""
        return self.ask("call", [method] * len(self.agents), args, kwargs)

    def bring_bookkeeping(self) -> float:
        """Bring what stands around the algorithms here, for rows of metrics; return the seconds spent on compiling so far."""
        answers = self.ask("bookkeeping")
        for agent, (kept, _) in zip(self.agents, answers, strict=True):
            agent.restore_bookkeeping(_with_info(agent, kept))
        return max(seconds for _, seconds in answers)

    def bring_policies(self) -> None:
        """Bring what acting needs here, for an evaluation."""
        for agent, policy in zip(self.agents, self.ask("policy"), strict=True):
            agent.restore({"policy": policy})

    def bring_agents(self) -> None:
        """Bring everything here."""
        for agent, snapshot in zip(self.agents, self.ask("snapshot"), strict=True):
            agent.restore(snapshot | {"training": _with_info(agent, snapshot["training"])})

    def _wake(self, flags: int, timestep: int, timesteps: int) -> None:
        self.board.call(flags, timestep, timesteps)
        self.crew.wake_all(TICK)
        self._owed = 0


def _outputs(index: int, timestep: int) -> str:
    """Return the name of the place for what an agent acted by in a timestep."""
    return f"outputs/{index}/{timestep % 2}"


def _output_slots(index: int, copies: int, space: Any, masks: Any) -> dict[str, Slot]:
    """Return the places for what an agent acts by that shares its memory."""
    flat = (int(np.prod(space.shape)),) if space.shape else ()
    shapes = {"actions": (copies, *flat)} | ({} if masks is None else {"action_masks": (copies, *np.shape(masks)[1:])})
    return {f"{_outputs(index, turn)}/{name}": Slot(shape) for turn in range(2) for name, shape in shapes.items()}


def _with_info(agent: Agent, kept: dict[str, Any]) -> dict[str, Any]:
    """Return bookkeeping with the environment's own numbers, which are kept in this process, where `infos` are."""
    return {**kept, "statistics": {**kept["statistics"], "info": agent.statistics.snapshot()["info"]}}

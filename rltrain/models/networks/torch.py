"""Networks in PyTorch: encoder -> hidden layers -> outputs. Ordinary modules; each is read through engines too.

Letters: B rows, T timesteps of N copies, O an observation as the network gets it, A the flat size of an action, F outputs,
C critics. `forward` is plain operations, for autograd and whatever else. `logits` and `values` are of which no gradient will be
asked; `..._with_vjp` come with what takes a loss's gradient with respect to them and adds the parameters' to their `grad`.
A network with a cell takes `Sequences` and `Successors` (`rltrain.models.sequences`) wherever it takes rows.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from rltrain.models.cells.torch import Carry, Cell
from rltrain.models.config import ActorCriticsConfig, AnyNetworkConfig, NetworkConfig, QNetworkConfig
from rltrain.models.engines.torch import VJP, Autograd, engine_for, sum_of
from rltrain.models.layers.torch import MLP
from rltrain.models.sequences import Run, Sequences, Successors, map_rows, remembering_nothing
from rltrain.spaces import map_arrays, named

POLICY_GAIN, VALUE_GAIN = 0.01, 1.0

Encoder = Any  # a module that makes `size` features (B, size) of observations; None: they are rows of numbers already


class Network(nn.Module):
    """A module that is read through engines, which are found when they are first asked for."""

    def __getstate__(self) -> dict[str, Any]:
        """Travel, and be copied, without engines, which read this network's own memory."""
        return {name: value for name, value in self.__dict__.items() if name != "engine"}


class FeedForward(Network, MLP):
    """An encoder, a cell that remembers, a perceptron, the first two where asked for: observations (B, *O) -> (B, F).

    Actions (B, A), `actions` of the `inputs`, go behind the features, and behind what is remembered. The perceptron's parameters
    are its own, so that their names are those of a network without the others.
    """

    def __init__(
        self,
        inputs: int,
        sizes: list[int],
        outputs: Sequence[tuple[int, float]],
        cfg: AnyNetworkConfig,
        generator: torch.Generator,
        encoder: Encoder = None,
        *,
        actions: int = 0,
    ) -> None:
        remembers = cfg.cell != "none"
        super().__init__(cfg.cell_size + actions if remembers else inputs, sizes, outputs, cfg, generator)
        self.encoder: Encoder = encoder
        self.cell: Any = None
        if remembers:
            self.cell = Cell(cfg.cell, inputs - actions, cfg.cell_size, cfg.cell_layers, cfg.initialization, generator)

    @functools.cached_property
    def engine(self) -> Any:
        """What computes outputs and gradients where an algorithm asks: an `Engine`, with a cell one that is `Remembering`."""
        return engine_for(self)

    def forward(self, inputs: Any, actions: torch.Tensor | None = None) -> torch.Tensor:
        """Return outputs (B, F); rows outside sequences are an episode's first."""
        features = self._encode(inputs) if self.cell is None else self._recall(inputs)
        return super().forward(features if actions is None else torch.cat((features, actions), 1))

    def _encode(self, rows: Any) -> torch.Tensor:
        return rows if self.encoder is None else self.encoder(rows)

    def _recall(self, inputs: Any) -> torch.Tensor:
        """Return what the cell says about rows, or sequences of them, (B, H)."""
        if isinstance(inputs, Sequences):
            remembered, _ = self._remember(inputs.rows, self._warm_up(inputs))
            return remembered.flatten(0, 1)
        if not isinstance(inputs, Successors):
            features = self._encode(inputs)
            return self.cell.step(features, self.cell.init_carry(len(features)))[0]
        _, carries = self._remember(inputs.sequences.rows, self._warm_up(inputs.sequences), every=True)
        known = tuple(part.flatten(0, 1)[inputs.after] for part in carries)
        return self.cell.step(self._encode(inputs.inputs), known)[0]

    def _warm_up(self, sequences: Sequences) -> Carry:
        """Return what is remembered before the rows to learn from."""
        carry, before = sequences.carry, sequences.before
        if carry is None:
            carry = self.cell.init_carry(sequences.rows.starts.shape[1])
        if len(before.starts) == 0:
            return carry
        with torch.no_grad():
            return self._remember(before, carry)[1]

    def _remember(self, run: Run, carry: Any, *, every: bool = False) -> tuple[torch.Tensor, Carry]:
        """Return what the cell says about each row, (T, N, H), and what it remembers after the last, or `every` one."""
        features = self._encode(map_arrays(lambda array: array.flatten(0, 1), run.inputs))
        return self.cell(features.view(*run.starts.shape, -1), run.starts, carry, every=every)

    def init_carry(self, num_envs: int) -> Carry | None:
        """Return what is remembered before the first row: of a cell zeros, else nothing."""
        return None if self.cell is None else self.cell.init_carry(num_envs)

    def step(
        self, observations: Any, carry: Carry | None = None, *, actions: torch.Tensor | None = None, noise: Any = None
    ) -> tuple[torch.Tensor, Carry | None]:
        """Return outputs (N, F) for one row of N copies, and the carry after it."""
        if self.cell is None:
            return self.engine.infer(observations, actions), None
        return self.engine.step(observations, carry, actions)

    def unroll(
        self,
        observations: Any,
        starts: torch.Tensor | None = None,
        carry: Carry | None = None,
        *,
        actions: torch.Tensor | None = None,
        noise: Any = None,
        learns: bool = False,
        keep: str = "last",
    ) -> tuple[torch.Tensor, Carry | None, dict[str, torch.Tensor]]:
        """Return outputs (T, N, F) for T rows of N copies, carries, and new running statistics; differentiable.

        The carries are that after the last row, (N, layers, H), or to `keep` "all" those after each, (T, N, layers, H). The carry
        is zeroed before a row where `starts` (T, N) bool says that an episode begins there.
        """
        flat = lambda array: array.flatten(0, 1)  # noqa: E731
        shape = next(iter(named(observations, "").values())).shape[:2]
        if self.cell is None:
            rows = map_arrays(flat, observations)
            return self(rows, None if actions is None else flat(actions)).view(*shape, -1), None, {}
        remembered, carries = self._remember(Run(observations, starts), carry, every=keep == "all")
        features = flat(remembered if actions is None else torch.cat((remembered, actions), -1))
        return super().forward(features).view(*shape, -1), carries, {}


class ActorCritic(Network):
    """A policy's and a value network, or one network with the outputs of both.

    `encoders` are the policy's (or the shared one) and the value network's.
    """

    def __init__(
        self,
        inputs: int,
        critic_inputs: int,
        outputs: int,
        cfg: NetworkConfig,
        generator: torch.Generator,
        device: torch.device,
        encoders: tuple[Encoder, Encoder] = (None, None),
    ) -> None:
        super().__init__()
        policy, value = (outputs, POLICY_GAIN), (1, VALUE_GAIN)
        first, second = encoders
        self.is_shared = cfg.shared
        if cfg.shared:
            self.shared = FeedForward(inputs, cfg.policy_sizes, (policy, value), cfg, generator, first)
        else:
            self.policy = FeedForward(inputs, cfg.policy_sizes, (policy,), cfg, generator, first)
            self.value = FeedForward(critic_inputs, cfg.value_sizes, (value,), cfg, generator, second)
        self.parts = (self.shared,) if cfg.shared else (self.policy, self.value)
        self.to(device)

    def forward(self, inputs: Any, critic_inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what the policy's distribution is made of, (B, F), and values (B,)."""
        if not self.is_shared:
            return self.policy(inputs), self.value(critic_inputs)[:, 0]
        outputs = self.shared(inputs)
        return outputs[:, :-1], outputs[:, -1]

    def logits(self, inputs: Any) -> torch.Tensor:
        """Return what the policy's distribution is made of, (B, F)."""
        outputs = self.parts[0].engine.infer(inputs)
        return outputs[:, :-1] if self.is_shared else outputs

    def init_carry(self, num_envs: int) -> Carry | None:
        """Return what the policy remembers before the first row."""
        return self.parts[0].init_carry(num_envs)

    def step(self, inputs: Any, carry: Carry | None) -> tuple[torch.Tensor, Carry | None]:
        """Return `logits` (N, F) for one row of N copies, and what the policy remembers after it."""
        outputs, carry = self.parts[0].step(inputs, carry)
        return outputs[:, :-1] if self.is_shared else outputs, carry

    def values(self, critic_inputs: Any) -> torch.Tensor:
        """Return values (B,)."""
        return self.parts[-1].engine.infer(critic_inputs)[:, -1]

    def logits_and_values_with_vjp(
        self, inputs: Any, critic_inputs: Any
    ) -> tuple[torch.Tensor, torch.Tensor, Callable[[torch.Tensor, torch.Tensor], None]]:
        """Return both with one pass through a shared network, and what takes a loss's gradients with respect to them."""
        outputs, policy_vjp = self.parts[0].engine.forward_and_vjp(inputs)
        if self.is_shared:
            logits, values = outputs[:, :-1], outputs[:, -1]
        else:
            second, value_vjp = self.parts[-1].engine.forward_and_vjp(critic_inputs)
            logits, values = outputs, second[:, 0]

        def vjp(to_logits: torch.Tensor, to_values: torch.Tensor) -> None:
            if self.is_shared:
                policy_vjp(torch.cat((to_logits, to_values[:, None]), 1))
            else:
                policy_vjp(to_logits)
                value_vjp(to_values[:, None])

        return logits, values, vjp

    def unroll_with_vjp(
        self, inputs: Any, critic_inputs: Any, starts: torch.Tensor, carries: tuple[Carry, ...]
    ) -> tuple[torch.Tensor, torch.Tensor, Callable[[torch.Tensor, torch.Tensor], None]]:
        """Return logits (T, N, F) and values (T, N) of what remembers, and what takes a loss's gradients with respect to them.

        `carries` are those before the first row, of the policy's and the value network, or of the one that both share.
        """
        flat = lambda array: array.flatten(0, 1)  # noqa: E731
        rows = zip(self.parts, (inputs, critic_inputs), carries, strict=False)
        pairs = [part.engine.unroll_and_vjp(map_arrays(flat, x), starts, carry) for part, x, carry in rows]
        outputs, vjps = [outputs for outputs, _ in pairs], [vjp for _, vjp in pairs]

        def vjp(to_logits: torch.Tensor, to_values: torch.Tensor) -> None:
            if self.is_shared:
                vjps[0](torch.cat((to_logits, to_values[..., None]), -1))
            else:
                vjps[0](to_logits)
                vjps[1](to_values[..., None])

        return outputs[0][..., :-1] if self.is_shared else outputs[0], outputs[-1][..., -1], vjp


class QNetwork(Network):
    """A network for the values of every choice (Mnih et al. 2015), dueling (Wang et al. 2016) on request.

    The two streams of a dueling network share the hidden layers; it has as many parameters as a plain one, but for one output.
    """

    def __init__(
        self,
        inputs: int,
        choices: int,
        cfg: QNetworkConfig,
        generator: torch.Generator,
        device: torch.device,
        encoder: Encoder = None,
    ) -> None:
        super().__init__()
        outputs = [(choices, VALUE_GAIN)] + ([(1, VALUE_GAIN)] if cfg.dueling else [])
        self.dueling = cfg.dueling
        self.q = FeedForward(inputs, cfg.sizes, outputs, cfg, generator, encoder)
        self.parts = (self.q,)  # read as an attribute; a module's own look up takes as long as a small product
        self.to(device)

    def forward(self, inputs: Any) -> torch.Tensor:
        """Return Q of every choice, (B, choices)."""
        return self._join(self.q(inputs))

    def values(self, inputs: Any) -> torch.Tensor:
        """Return Q of every choice, (B, choices)."""
        return self._join(self.parts[0].engine.infer(inputs))

    logits = values  # of which the largest is the best choice's

    def init_carry(self, num_envs: int) -> Carry | None:
        """Return what is remembered before the first row."""
        return self.parts[0].init_carry(num_envs)

    def step(self, inputs: Any, carry: Carry | None) -> tuple[torch.Tensor, Carry | None]:
        """Return Q (N, choices) for one row of N copies, and what is remembered after it."""
        outputs, carry = self.parts[0].step(inputs, carry)
        return self._join(outputs), carry

    def values_with_vjp(self, inputs: Any) -> tuple[torch.Tensor, VJP]:
        """Return Q (B, choices), and what takes a loss's gradient with respect to it."""
        outputs, vjp = self.parts[0].engine.forward_and_vjp(inputs)
        if not self.dueling:
            return outputs, vjp
        apart = lambda q: torch.cat((q - q.mean(1, keepdim=True), q.sum(1, keepdim=True)), 1)  # noqa: E731
        return self._join(outputs), lambda gradients: vjp(apart(gradients))

    def _join(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return Q = V + A - mean A (Wang et al. 2016, equation 9)."""
        if not self.dueling:
            return outputs
        advantages, value = outputs[:, :-1], outputs[:, -1:]
        return value + advantages - advantages.mean(1, keepdim=True)


class Policy(Network):
    """A policy's network."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        cfg: ActorCriticsConfig,
        generator: torch.Generator,
        device: torch.device,
        encoder: Encoder = None,
    ) -> None:
        super().__init__()
        self.policy = FeedForward(inputs, cfg.policy_sizes, [(outputs, POLICY_GAIN)], cfg, generator, encoder)
        self.parts = (self.policy,)
        self.to(device)

    def forward(self, inputs: Any) -> torch.Tensor:
        """Return what actions or their distribution are made of, (B, F)."""
        return self.policy(inputs)

    def logits(self, inputs: Any) -> torch.Tensor:
        """Return what actions or their distribution are made of, (B, F)."""
        return self.parts[0].engine.infer(inputs)

    def init_carry(self, num_envs: int) -> Carry | None:
        """Return what is remembered before the first row."""
        return self.parts[0].init_carry(num_envs)

    def step(self, inputs: Any, carry: Carry | None) -> tuple[torch.Tensor, Carry | None]:
        """Return `logits` (N, F) for one row of N copies, and what is remembered after it."""
        return self.parts[0].step(inputs, carry)

    def logits_with_vjp(self, inputs: Any) -> tuple[torch.Tensor, VJP]:
        """Return logits (B, F), and what takes a loss's gradient with respect to them."""
        return self.parts[0].engine.forward_and_vjp(inputs)


class Critics(Network):
    """C networks for the value of an action, or of every choice; an encoder, where there is one, is common to all.

    Of the `inputs`, `actions` are the action's. What each remembers is its own: of sequences it begins with nothing, or `before`.
    """

    def __init__(
        self,
        count: int,
        inputs: int,
        outputs: int,
        cfg: ActorCriticsConfig,
        generator: torch.Generator,
        device: torch.device,
        encoder: Encoder = None,
        *,
        actions: int = 0,
    ) -> None:
        super().__init__()
        last, sizes = [(outputs, VALUE_GAIN)], cfg.critic_sizes
        networks = [FeedForward(inputs, sizes, last, cfg, generator, actions=actions) for _ in range(count)]
        for i, network in enumerate(networks):
            self.add_module(f"critic_{i}", network)
        self.networks = tuple(networks)
        self.critics = nn.ModuleDict({} if encoder is None else {"encoder": encoder})  # what they share
        self.to(device)

    @functools.cached_property
    def encoder(self) -> Encoder:
        """What makes features for all critics, or None."""
        return self.critics["encoder"] if len(self.critics) else None

    def forward(self, inputs: Any, actions: torch.Tensor | None = None) -> torch.Tensor:
        """Return Q: actions (B, A) -> (C, B, 1); without actions, of every choice -> (C, B, choices)."""
        inputs = remembering_nothing(inputs)
        features = inputs if self.encoder is None else map_rows(self.encoder, inputs)
        return torch.stack([network(features, actions) for network in self.networks])

    def values(self, inputs: Any, actions: torch.Tensor | None = None) -> torch.Tensor:
        """Return Q: actions (B, A) -> (C, B); without actions, of every choice -> (C, B, choices)."""
        if self.encoder is None:
            inputs = remembering_nothing(inputs)
            outputs = torch.stack([network.engine.infer(inputs, actions) for network in self.networks])
        else:
            outputs = Autograd(self).infer(inputs, actions)
        return outputs if actions is None else outputs[:, :, 0]

    def values_with_vjp(
        self, inputs: Any, actions: torch.Tensor | None = None, *, to_actions: bool = False, count: int | None = None
    ) -> tuple[torch.Tensor, VJP]:
        """Return `values`, and what takes a loss's gradient with respect to them, of their shape.

        With `to_actions` that returns the actions' gradient (B, A) instead of adding the parameters', for a policy to climb. Only
        the first `count` critics are asked, if given.
        """
        if self.encoder is None:
            inputs, networks = remembering_nothing(inputs), self.networks[:count]
            pairs = [network.engine.forward_and_vjp(inputs, actions, to_actions=to_actions) for network in networks]
            outputs = torch.stack([outputs for outputs, _ in pairs])
            back = sum_of([vjp for _, vjp in pairs])
        else:
            outputs, back = Autograd(self).forward_and_vjp(inputs, actions, to_actions=to_actions)
        if actions is None:
            return outputs, back
        unasked = outputs.new_zeros(len(outputs[count:]) if count else 0, outputs.shape[1])  # computed with a common encoder
        return outputs[:count, :, 0], lambda gradients: back(torch.cat((gradients, unasked))[:, :, None])

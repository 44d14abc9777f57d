"""Parameters as one vector, and optimisers on it."""

import functools
import weakref
from collections.abc import Set
from typing import Any

import numpy as np
import torch
from torch import nn

FLAT: "weakref.WeakValueDictionary[int, nn.Parameter]" = weakref.WeakValueDictionary()  # those that are part of a vector


class FlatParameters:
    """All parameters of several modules as one vector, and their gradients as another.

    One norm, one optimiser step and one clearing serve all of them; the modules see views. Their `grad` may be anything between
    `clear_gradients` and `clip_gradients`, which gathers it: a view, as it is after the former, or what autograd put there.
    """

    def __init__(self, named: dict[str, nn.Parameter], device: torch.device) -> None:
        taken = [name for name, parameter in named.items() if FLAT.get(id(parameter)) is parameter]
        if taken:
            raise ValueError(
                f"{taken[0]} is part of a vector already; an optimiser of one's own takes the parameters as they are"
            )
        self._flatten(named, device)
        self.freeze(frozenset())

    def _flatten(self, named: dict[str, nn.Parameter], device: torch.device) -> None:
        """Make the vectors, and the parameters views of them."""
        self.named = named
        size = sum(parameter.numel() for parameter in named.values())
        self.values = torch.empty(size, device=device)
        self.gradients = torch.zeros(size, device=device)
        self._views: list[tuple[nn.Parameter, torch.Tensor]] = []  # each parameter's part of the gradients
        start = 0
        for parameter in named.values():
            stop = start + parameter.numel()
            view = self.values[start:stop].view(parameter.shape)
            view.copy_(parameter.data)
            parameter.data = view
            FLAT[id(parameter)] = parameter
            self._views.append((parameter, self.gradients[start:stop].view(parameter.shape)))
            start = stop
        self.clear_gradients()

    def __getstate__(self) -> dict[str, Any]:
        """Travel, and be copied, as the parameters, which then are views of vectors of their own."""
        return {"named": self.named, "device": self.values.device, "frozen": self.frozen}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make the vectors anew."""
        self._flatten(state["named"], state["device"])
        self.freeze(state["frozen"])

    def freeze(self, names: Set[str]) -> None:
        """Let parameters of these names stay as they are: their gradient is 0, optimisers pass them over.

        To be called before an optimiser's first step.
        """
        self.frozen = frozenset(names)
        self.learning: list[slice] = []  # the runs of the vectors that learn
        self._frozen: list[torch.Tensor] = []  # the parts of the gradients of those that don't
        start = 0
        for name, (_, view) in zip(self.named, self._views, strict=True):
            stop = start + view.numel()
            if name in names:
                self._frozen.append(view)
            elif self.learning and self.learning[-1].stop == start:
                self.learning[-1] = slice(self.learning[-1].start, stop)
            else:
                self.learning.append(slice(start, stop))
            start = stop

    def clear_gradients(self) -> None:
        """Set every gradient to zero, each parameter's `grad` to its part of the vector."""
        self.gradients.zero_()
        for parameter, view in self._views:
            if parameter.grad is not view:
                parameter.grad = view

    def gather_gradients(self) -> None:
        """Bring gradients that are not in the vector into it."""
        for parameter, view in self._views:
            if parameter.grad is not view:
                view.copy_(torch.zeros_like(view) if parameter.grad is None else parameter.grad)
                parameter.grad = view

    def clip_gradients(self, max_norm: float) -> torch.Tensor:
        """Gather the gradient and scale it to at most `max_norm` (0: leave it); return its norm before."""
        self.gather_gradients()
        for view in self._frozen:
            view.zero_()
        norm = torch.linalg.vector_norm(self.gradients)
        if max_norm > 0 and (norm.is_cuda or norm + 1e-6 > max_norm):  # to ask a GPU is to wait for it
            self.gradients.mul_(torch.clamp(max_norm / (norm + 1e-6), max=1.0))
        return norm

    def snapshot(self) -> dict[str, np.ndarray]:
        """Return a copy of every parameter by name."""
        return {name: parameter.detach().cpu().numpy().copy() for name, parameter in self.named.items()}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Put parameters back in place; the views stay views."""
        with torch.no_grad():
            for name, parameter in self.named.items():
                if name not in arrays:
                    raise ValueError(f"{name} is not there; it has {', '.join(list(arrays)[:3])}, ...")
                array = torch.as_tensor(np.array(arrays[name]))
                if array.shape != parameter.shape:
                    raise ValueError(f"{name} has shape {tuple(array.shape)} there and {tuple(parameter.shape)} here")
                parameter.copy_(array)


class Adam:
    """Adam (Kingma and Ba 2015) on one vector.

    m <- b1 m + (1 - b1) g; v <- b2 v + (1 - b2) g^2; p <- p - lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + epsilon).
    torch.optim.Adam's kernel without torch.optim.Adam, whose first use imports torch's compiler, which takes a second; one pass
    over the vectors takes less than half the time of an operation after the other.
    """

    def __init__(self, parameters: FlatParameters, learning_rate: float, *, epsilon: float = 1e-8) -> None:
        self.parameters, self.learning_rate, self.epsilon = parameters, learning_rate, epsilon
        self.first_moments = torch.zeros_like(parameters.values)
        self.second_moments = torch.zeros_like(parameters.values)
        self.steps = torch.zeros((), device=parameters.values.device)

    def __getstate__(self) -> dict[str, Any]:
        """Travel, and be copied, without what reads the vectors' memory."""
        return {name: value for name, value in self.__dict__.items() if name != "_parts"}

    @functools.cached_property
    def _parts(self) -> list[list[torch.Tensor]]:
        """What learns of each vector."""
        vectors = (self.parameters.values, self.parameters.gradients, self.first_moments, self.second_moments)
        return [[vector[run] for run in self.parameters.learning] for vector in vectors]

    @torch.no_grad()
    def step(self) -> None:
        """Take one step down the gradient."""
        self.steps += 1
        if not self.parameters.learning:
            return
        values, gradients, first_moments, second_moments = self._parts
        torch._fused_adam_(
            values,
            gradients,
            first_moments,
            second_moments,
            [],
            [self.steps] * len(values),
            lr=self.learning_rate,
            beta1=0.9,
            beta2=0.999,
            weight_decay=0.0,
            eps=self.epsilon,
            amsgrad=False,
            maximize=False,
        )

    def snapshot(self) -> dict[str, Any]:
        """Return moments and count."""
        return {
            "first_moments": self.first_moments.cpu().numpy().copy(),
            "second_moments": self.second_moments.cpu().numpy().copy(),
            "steps": int(self.steps),
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put everything back."""
        self.first_moments.copy_(torch.as_tensor(np.array(snapshot["first_moments"])))
        self.second_moments.copy_(torch.as_tensor(np.array(snapshot["second_moments"])))
        self.steps.fill_(int(snapshot["steps"]))


class RMSProp:
    """RMSProp (Tieleman and Hinton 2012) on one vector: v <- decay v + (1 - decay) g^2; p <- p - lr g / (sqrt(v) + epsilon).

    v begins at 1, as in TensorFlow: from 0, the first steps are as large as the learning rate allows, whatever the gradient, and
    saturate small networks for good.
    """

    def __init__(self, parameters: FlatParameters, learning_rate: float, *, epsilon: float = 1e-8, decay: float = 0.99) -> None:
        self.parameters, self.learning_rate, self.epsilon, self.decay = parameters, learning_rate, epsilon, decay
        self.second_moments = torch.ones_like(parameters.values)

    @torch.no_grad()
    def step(self) -> None:
        """Take one step down the gradient."""
        for run in self.parameters.learning:
            gradients, moments = self.parameters.gradients[run], self.second_moments[run]
            moments.mul_(self.decay).addcmul_(gradients, gradients, value=1 - self.decay)
            scale = moments.sqrt().add_(self.epsilon)
            self.parameters.values[run].addcdiv_(gradients, scale, value=-self.learning_rate)

    def snapshot(self) -> dict[str, Any]:
        """Return the moments."""
        return {"second_moments": self.second_moments.cpu().numpy().copy()}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put everything back."""
        self.second_moments.copy_(torch.as_tensor(np.array(snapshot["second_moments"])))

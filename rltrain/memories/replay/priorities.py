"""Priorities as a tree of sums: drawing and changing rows takes O(log n) each, a whole batch at a time."""

import numpy as np

EPSILON = 1e-6


class Priorities:
    """Draws row i with probability p_i / sum p, p_i = (|error_i| + 1e-6)^exponent (Schaul et al. 2016, section 3.3).

    Node i of the array has children 2 i and 2 i + 1 and holds their sum; the leaves begin at `leaves`. A row of priority 0 is
    never drawn. New rows get the largest priority that any row has had, so that each is drawn soon. A row stands for what begins
    there and ends `lag` timesteps later: it is new when that one is there.
    """

    def __init__(self, size: int, exponent: float, lag: int = 0) -> None:
        self.size, self.exponent, self.lag = size, exponent, lag
        self.levels = max(1, (size - 1).bit_length())
        self.leaves = 1 << self.levels
        self.tree = np.zeros(2 * self.leaves)
        self.largest = 1.0  # |error| + 1e-6 of any row so far

    @property
    def total(self) -> float:
        """The sum of all priorities."""
        return float(self.tree[1])

    def add(self, rows: np.ndarray, there: np.ndarray) -> None:
        """Give new rows (B,) the largest priority so far, 0 where `there` (B,) is False."""
        self._set(rows, np.where(there, self.largest**self.exponent, 0.0))

    def update(self, rows: np.ndarray, errors: np.ndarray) -> None:
        """Set the priorities of rows (B,) by their errors (B,); of a row that is there twice, the last one counts."""
        magnitudes = np.abs(errors.astype(np.float64)) + EPSILON
        self.largest = max(self.largest, float(magnitudes.max()))
        self._set(rows, magnitudes**self.exponent)

    def sample(self, count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw rows (B,), one from each of `count` equal parts of the total; return them and their probabilities (B,)."""
        points = (np.arange(count) + generator.random(count)) * (self.total / count)
        nodes = np.ones(count, np.int64)
        for _ in range(self.levels):
            nodes *= 2
            left = self.tree[nodes]
            # rounding may lead a point past the last row: never into a branch that is empty
            right = (points >= left) & (self.tree[nodes + 1] > 0)
            points -= left * right
            nodes += right
        return nodes - self.leaves, self.tree[nodes] / self.total

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return the priorities of rows (B,)."""
        return self.tree[rows + self.leaves]

    def restore(self, rows: np.ndarray, priorities: np.ndarray, largest: float) -> None:
        """Put back what `read` gave; all other rows have none."""
        self.tree[:] = 0
        self.tree[rows + self.leaves] = priorities
        for level in reversed(range(self.levels)):
            first = 1 << level
            self.tree[first : 2 * first] = self.tree[2 * first : 4 * first : 2] + self.tree[2 * first + 1 : 4 * first : 2]
        self.largest = largest

    def _set(self, rows: np.ndarray, priorities: np.ndarray) -> None:
        nodes = rows + self.leaves
        self.tree[nodes] = priorities
        for _ in range(self.levels):
            nodes = nodes >> 1
            self.tree[nodes] = self.tree[2 * nodes] + self.tree[2 * nodes + 1]

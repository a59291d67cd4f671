"""What makes one method differ from another: its step sizes and its dual line. The rest is shared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from badmm.families.family import Family, Natural
from badmm.rounds.policy import Policy, Setting, Steps


class Method(ABC):
    """A method for K clients of a family; stateless apart from its policy."""

    name: str

    def __init__(self, family: Family, num_clients: int, rho: Setting, alpha: Setting, damping: Setting) -> None:
        self.family, self.num_clients = family, num_clients
        self.policy = self.make_policy(rho, alpha, damping)

    @abstractmethod
    def make_policy(self, rho: Setting, alpha: Setting, damping: Setting) -> Policy:
        """The step sizes from the user's settings; raises `ValueError` for values the method does not allow."""

    def steps(self, natural_global: Natural, required_rho: Callable[[], float]) -> Steps:
        """The next round's step sizes."""
        return self.policy.steps(required_rho)

    @abstractmethod
    def dual(self, duals: Natural, natural_global: Natural, clients: Natural, steps: Steps) -> Natural:
        """The duals (K, ...) after the clients' step."""

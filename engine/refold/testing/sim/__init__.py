"""A simulator: replicas on one seeded event loop in virtual time, over stores that crash and a network that fails.

A run is a function of its seed. `simulate` performs one and says what was wrong; `shrink` drops actions of a run that
failed for as long as it still fails.
"""

from .run import Outcome, shrink, simulate

__all__ = ["Outcome", "shrink", "simulate"]

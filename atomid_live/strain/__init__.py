"""Strain: per column, by phase, against a named reference, watched over time."""

from atomid_live.strain.tracker import StrainTracker
from atomid_live.strain.warm import warm_up

__all__ = ["StrainTracker", "warm_up"]

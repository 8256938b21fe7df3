"""Strain: per column, by phase, against a named reference, watched over time."""

from atomid_live.strain.tracker import StrainTracker

__all__ = ["StrainTracker"]

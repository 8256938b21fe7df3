"""Lattice of a frame: basis, cell and site class per column, missing sites."""

from atomid_live.lattice.index import find_lattice
from atomid_live.lattice.sites import missing_sites

__all__ = ["find_lattice", "missing_sites"]

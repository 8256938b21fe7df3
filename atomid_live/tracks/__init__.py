"""Columns followed from frame to frame: stable ids, what happened to them, and what the dose did."""

from atomid_live.tracks.tracker import TrackTracker

__all__ = ["TrackTracker"]

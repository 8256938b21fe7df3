"""Electrons per area, frame by frame, and how fast the sites empty."""

from __future__ import annotations

import math

from atomid_live.calibration import is_calibrated
from atomid_live.types import NAN, Damage, Frame

ELEMENTARY_CHARGE_C = 1.602176634e-19


def frame_dose(frame: Frame, beam_current_pa: float | None) -> tuple[float, str]:
    """Electrons per square nm of one frame, current x dwell / (e x pixel area), or NaN and what is lacking.

    Fly-back is not counted: whether the beam is blanked then is not known.
    """
    current_a = beam_current_pa * 1e-12 if beam_current_pa is not None else frame.meta.beam_current_a
    lacking = []
    if not current_a > 0:
        lacking.append("beam current (give --beam-current-pa)")
    if not frame.meta.dwell_s > 0:
        lacking.append("dwell time")
    if not is_calibrated(frame.pixel_size_yx_nm):
        lacking.append("pixel size (give --pixel-size-nm)")
    if lacking:
        return NAN, f"dose not known: the frame does not tell {', '.join(lacking)}"
    area_nm2 = frame.pixel_size_yx_nm[0] * frame.pixel_size_yx_nm[1]
    return current_a * frame.meta.dwell_s / (ELEMENTARY_CHARGE_C * area_nm2), ""


class DoseMeter:
    """Adds up the dose of one segment, and counts losses against it.

    Parameters
    ----------
    beam_current_pa : float or None
        The user's, over what frames say.
    """

    def __init__(self, beam_current_pa: float | None) -> None:
        self._current_pa = beam_current_pa
        self.reset()

    def reset(self) -> None:
        """Begin a segment."""
        self._sum, self._reason, self._dose = 0.0, "", NAN
        self._known = self._occupied = -1
        self._losses = self._heals = 0
        self._site_frames = self._site_dose = 0.0

    def expose(self, frame: Frame) -> None:
        """Take the next frame's dose."""
        self._dose, reason = frame_dose(frame, self._current_pa)
        self._sum += self._dose
        self._reason = self._reason or reason
        self._known = self._occupied = -1

    def count(self, known: int, occupied: int, losses: int, heals: int) -> None:
        """Take what a frame showed: sites in view of known state, those with a column, and changes confirmed in it."""
        self._known, self._occupied = known, occupied
        self._losses += losses
        self._heals += heals
        self._site_frames += occupied
        self._site_dose += occupied * self._dose

    def _rate(self, exposure: float) -> tuple[float, float]:
        """Losses per exposure and standard error of a Poisson count; with no loss the error is that of one."""
        if not exposure > 0:
            return NAN, NAN
        return self._losses / exposure, math.sqrt(max(self._losses, 1)) / exposure

    def reading(self) -> Damage:
        """State after the frame given last."""
        known, full = self._known, self._occupied
        share = full / known if known > 0 else NAN
        likely = (full + 1) / (known + 2)
        return Damage(
            dose_e_nm2=self._dose,
            cumulative_e_nm2=self._sum,
            reason=self._reason,
            known=known,
            occupied=full,
            occupancy=share,
            occupancy_sigma=math.sqrt(likely * (1 - likely) / known) if known > 0 else NAN,
            losses=self._losses,
            heals=self._heals,
            loss_per_frame=self._rate(self._site_frames),
            loss_per_e_nm2=self._rate(self._site_dose),
        )

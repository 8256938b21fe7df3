"""What the microscope is: pixels and nm, the order of axes, and the scan's distortion as a profile tells it."""

from atomid_live.calibration.pixels import (
    is_calibrated,
    length_nm,
    length_px,
    mean_pixel_nm,
    pair_nm,
    points_nm,
    xy,
    xy_columns,
    yx,
    yx_points,
)
from atomid_live.calibration.profile import Profile, calibrated, find_profile, read_profile, write_profile

__all__ = [
    "Profile",
    "calibrated",
    "find_profile",
    "is_calibrated",
    "length_nm",
    "length_px",
    "mean_pixel_nm",
    "pair_nm",
    "points_nm",
    "read_profile",
    "write_profile",
    "xy",
    "xy_columns",
    "yx",
    "yx_points",
]

"""Live atom columns, drift and strain beside a scanning transmission electron microscope."""

__version__ = "0.1.0"

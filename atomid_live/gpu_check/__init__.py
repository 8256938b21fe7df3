"""Proof of the GPU's part on a machine that has one: `scripts/gpu_check.py`."""

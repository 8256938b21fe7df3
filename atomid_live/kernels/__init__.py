"""Columns on a GPU: CUDA C++ kernels from normalisation to refined positions, with a NumPy reference and a torch twin."""

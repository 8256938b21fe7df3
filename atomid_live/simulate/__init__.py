"""Simulated specimens and microscope: an incoherent forward model whose truth is known exactly."""

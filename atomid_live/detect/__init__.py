"""Finding columns: scale, resampling, normalisation, peaks and sub-pixel refinement, each a pure function of arrays."""

"""Following the specimen: pairwise shift, rolling reference, and which lattice vector the step really was."""

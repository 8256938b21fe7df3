"""Training of the networks: scenes, targets, loss, loop and export. The only room, with `backends.torch`, that loads torch."""

"""Other people's methods over the same images, with parameters chosen with the truth in hand; ours are fixed."""

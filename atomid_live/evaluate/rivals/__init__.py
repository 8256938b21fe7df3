"""Other people's methods over the same images, with parameters chosen with the truth in hand; ours are fixed."""

from atomid_live.evaluate.rivals.entry import RIVALS, Rival, open_rivals

__all__ = ["RIVALS", "Rival", "open_rivals"]

"""Scores against truth, with the chance level beside each."""

"""Tells people what happened, by the channels that a pipeline declares."""

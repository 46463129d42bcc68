"""Commands for people and pipelines; each runs alone, on the standard library."""

"""The language of registries: pure values that parse and format; no client, no clock, no environment."""

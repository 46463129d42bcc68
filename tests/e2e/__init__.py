"""End to end: real container engines, a real registry, the service as a user starts it. Nothing is patched."""

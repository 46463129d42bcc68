"""The real registries: how we talk to them, and to nobody else. The contract is `upstream.py`."""

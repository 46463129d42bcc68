"""One signed, logged claim: what is said, who signs it, what proves it, and where it is found again."""

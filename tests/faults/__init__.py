"""Every step of a request by tag, and every way in which it can fail, through the real processes."""

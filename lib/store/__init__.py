"""What we remember: write-once records and claims, keyed by canonical tag."""

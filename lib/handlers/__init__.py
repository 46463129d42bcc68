"""One small file for each endpoint. docs/request-handling.md is the normative page of what they answer."""

"""tlogistry: a pull-only OCI registry front that serves a tag only while it points to the digest first seen."""

VERSION = "0.1.0"  # as in pyproject.toml, which is not deployed

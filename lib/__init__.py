"""tlogistry: a pull-only OCI registry front that serves a tag only while it points to the digest first seen."""

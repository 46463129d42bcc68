"""End to end as in the cloud: the bundle that Terraform zips, in its own environment, among stand-ins. Nothing is patched."""

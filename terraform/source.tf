# The source that the function is built from: exactly these files, the same zip on every machine.
#
# An allow-list, so that no test, state, key or local database can slip in. tests/terraform/test_bundle.py reads the two lists
# below and holds them to what main.py imports: a module is in the bundle if and only if the function can reach it.

locals {
  root = "${path.module}/.."

  bundle_globs = ["main.py", "requirements.txt", "lib/**/*.py"]
  # The local start and its Sigstore, which is NOT FOR PRODUCTION, and the operator's commands.
  left_out_globs = ["lib/devsigstore/**", "lib/__main__.py", "lib/cli.py", "lib/local.py"]

  bundle = setsubtract(
    toset(flatten([for glob in local.bundle_globs : tolist(fileset(local.root, glob))])),
    toset(flatten([for glob in local.left_out_globs : tolist(fileset(local.root, glob))])),
  )

  # A private trust configuration goes along. functions-framework starts in the folder of main.py, so its name is enough.
  trust_file = "trust-config.json"
  trust_text = var.trust_config == null ? null : file(var.trust_config)
  trust_urls = {
    for key, url in { caUrls = var.fulcio_url, rekorTlogUrls = var.rekor_url } :
    key => [{ url = url, majorApiVersion = 1, validFor = { start = "2020-01-01T00:00:00Z" }, operator = "set by Terraform" }]
    if url != null
  }
  trust_json = (
    var.trust_config == null || length(local.trust_urls) == 0
    ? local.trust_text
    : jsonencode(merge(jsondecode(local.trust_text), {
      signingConfig = merge(jsondecode(local.trust_text).signingConfig, local.trust_urls)
    }))
  )
}

data "archive_file" "source" {
  type             = "zip"
  output_path      = "${path.module}/.build/source.zip"
  output_file_mode = "0644" # else the zip, and with it the build, depends on the umask of whoever runs this

  dynamic "source" {
    for_each = local.bundle
    content {
      filename = source.value
      content  = file("${local.root}/${source.value}")
    }
  }

  dynamic "source" {
    for_each = var.trust_config == null ? [] : [local.trust_file]
    content {
      filename = source.value
      content  = local.trust_json
    }
  }

  lifecycle {
    precondition {
      condition     = var.trust_config != null || (var.rekor_url == null && var.fulcio_url == null)
      error_message = "rekor_url and fulcio_url need trust_config: another log or authority is only believed if its keys are known."
    }
  }
}

resource "google_storage_bucket" "source" {
  name                        = "${var.project_id}-${var.name}-source"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = true # nothing but zips that this configuration makes again

  depends_on = [google_project_service.api]
}

resource "google_storage_bucket_object" "source" {
  name   = "source-${data.archive_file.source.output_sha256}.zip" # new content, new name, new build
  bucket = google_storage_bucket.source.name
  source = data.archive_file.source.output_path
}

resource "google_artifact_registry_repository" "build" {
  repository_id = var.name
  location      = var.region
  format        = "DOCKER"
  description   = "Images of the function ${var.name}, made by its build."

  cleanup_policies {
    id     = "keep-recent"
    action = "KEEP"
    most_recent_versions {
      keep_count = 10
    }
  }

  cleanup_policies {
    id     = "delete-old"
    action = "DELETE"
    condition {
      older_than = "2592000s" # 30 days
    }
  }

  depends_on = [google_project_service.api]
}

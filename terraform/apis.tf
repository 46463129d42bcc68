# The Google APIs. Never switched off again: something else in the project may use them.

locals {
  apis = concat(
    [
      "artifactregistry.googleapis.com",
      "cloudbuild.googleapis.com",
      "cloudfunctions.googleapis.com",
      "cloudresourcemanager.googleapis.com",
      "firestore.googleapis.com",
      "iam.googleapis.com",
      "logging.googleapis.com",
      "monitoring.googleapis.com",
      "run.googleapis.com",
      "secretmanager.googleapis.com",
      "serviceusage.googleapis.com",
      "storage.googleapis.com",
    ],
    var.domain == null ? [] : ["compute.googleapis.com"],
  )
}

resource "google_project_service" "api" {
  for_each = toset(var.enable_apis ? local.apis : [])

  service                    = each.value
  disable_on_destroy         = false
  disable_dependent_services = false
}

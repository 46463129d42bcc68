# Two service accounts: one that runs and signs, one that builds. Each may do what is listed here and nothing else.

locals {
  # Known before anything is made, so that a plan shows who will sign; held to the real account by a postcondition.
  signer_id    = coalesce(var.service_account_id, var.name)
  signer_email = "${local.signer_id}@${var.project_id}.iam.gserviceaccount.com"
  issuer       = "https://accounts.google.com"
  identities   = concat([{ email = local.signer_email, issuer = local.issuer }], var.accepted_identities)
}

# Its e-mail is in every signature. It needs no role to get its own identity token, and none to write to standard output.
resource "google_service_account" "runtime" {
  account_id   = local.signer_id
  display_name = "${var.name}: runs the function and signs what it saw"

  depends_on = [google_project_service.api]

  lifecycle {
    create_before_destroy = true # the function moves to a new account before the old one goes

    precondition {
      condition     = alltrue([for identity in var.accepted_identities : identity != local.identities[0]])
      error_message = "The signing service account is accepted anyway: leave it out of accepted_identities."
    }
    postcondition {
      condition     = self.email == local.signer_email
      error_message = "The service account's e-mail is not the identity that the function is told to sign as."
    }
  }
}

# Get and create, no update, no delete, no list: records are written once.
resource "google_project_iam_custom_role" "records" {
  role_id     = "${replace(var.name, "-", "_")}_records"
  title       = "${var.name}: read and add records"
  description = "Get and create Firestore documents: no update, no delete, no list."
  permissions = ["datastore.entities.create", "datastore.entities.get"]

  depends_on = [google_project_service.api]
}

resource "google_project_iam_member" "records" {
  project = var.project_id
  role    = google_project_iam_custom_role.records.id
  member  = google_service_account.runtime.member

  condition {
    title       = "${var.name}_database"
    description = "This one database only."
    expression  = "resource.name == \"${local.database}\""
  }
}

resource "google_service_account" "build" {
  account_id   = "${var.name}-build"
  display_name = "${var.name}: builds the function"

  depends_on = [google_project_service.api]
}

resource "google_project_iam_member" "build_logs" {
  project = var.project_id
  role    = "roles/logging.logWriter"
  member  = google_service_account.build.member
}

resource "google_storage_bucket_iam_member" "build_source" {
  bucket = google_storage_bucket.source.name
  role   = "roles/storage.objectViewer"
  member = google_service_account.build.member
}

# Cloud Run functions copies the source to a bucket of its own, which does not exist before the first deployment.
resource "google_project_iam_member" "build_staged_source" {
  project = var.project_id
  role    = "roles/storage.objectViewer"
  member  = google_service_account.build.member

  condition {
    title       = "${var.name}_staged_source"
    description = "The bucket that Cloud Run functions builds from."
    expression  = "resource.name.startsWith(\"projects/_/buckets/gcf-v2-sources-${google_storage_bucket.source.project_number}-${var.region}\")"
  }
}

resource "google_artifact_registry_repository_iam_member" "build" {
  location   = google_artifact_registry_repository.build.location
  repository = google_artifact_registry_repository.build.name
  role       = "roles/artifactregistry.writer"
  member     = google_service_account.build.member
}

# On the Cloud Run service: the function's own IAM does not take this role.
resource "google_cloud_run_v2_service_iam_member" "everybody" {
  count = var.allow_unauthenticated ? 1 : 0

  name     = google_cloudfunctions2_function.tlogistry.name
  location = google_cloudfunctions2_function.tlogistry.location
  role     = "roles/run.invoker"
  member   = "allUsers"
}

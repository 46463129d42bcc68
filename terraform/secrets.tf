# Accounts at registries, optional. Only the secret is made here; its value is added by hand, and is in no state and no plan:
#   gcloud secrets versions add NAME --data-file=-

resource "google_secret_manager_secret" "upstream_credentials" {
  count = var.upstream_credentials_secret == null ? 0 : 1

  secret_id = var.upstream_credentials_secret

  replication {
    auto {}
  }

  depends_on = [google_project_service.api]
}

resource "google_secret_manager_secret_iam_member" "runtime" {
  count = var.upstream_credentials_secret == null ? 0 : 1

  secret_id = google_secret_manager_secret.upstream_credentials[0].id
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.runtime.member
}

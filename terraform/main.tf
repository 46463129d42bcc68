# The function. `google_cloudfunctions2_function`, because only it builds its source in `terraform apply`.

locals {
  environment = merge(
    {
      GOOGLE_CLOUD_PROJECT     = var.project_id
      LOG_EXECUTION_ID         = "false" # else every line is rewritten by the framework, through a global that threads share
      MALLOC_ARENA_MAX         = "2"     # else each thread keeps the memory of the largest document that it ever parsed
      THREADS                  = tostring(var.concurrency)
      TLOGISTRY_DEADLINE       = tostring(var.deadline_seconds)
      TLOGISTRY_FORWARDED_HOPS = var.domain == null ? "1" : "2" # Cloud Run's front end adds an address, the load balancer one more
      TLOGISTRY_IDENTITIES     = jsonencode(local.identities)
      TLOGISTRY_LOG_SEARCH     = var.log_search ? "on" : "off"
      TLOGISTRY_STORE          = "firestore:${local.database}"
      TLOGISTRY_TRUST          = var.trust_config == null ? "production" : local.trust_file
    },
    {
      for setting, limit in {
        TLOGISTRY_NEW_TAGS_PER_CLIENT = var.new_tag_limits.per_client
        TLOGISTRY_NEW_TAGS_PER_DOMAIN = var.new_tag_limits.per_domain
        TLOGISTRY_NEW_TAGS_TOTAL      = var.new_tag_limits.total
        TLOGISTRY_NEW_TAGS_PER_DAY    = var.new_tag_limits.per_day
      } : setting => limit if limit != null
    },
    var.domain == null ? {} : { TLOGISTRY_OWN_HOSTS = jsonencode([var.domain]) },
    var.allow_upstreams == null ? {} : { TLOGISTRY_ALLOW_UPSTREAMS = jsonencode(var.allow_upstreams) },
    length(var.deny_upstreams) == 0 ? {} : { TLOGISTRY_DENY_UPSTREAMS = jsonencode(var.deny_upstreams) },
    var.upstream_credentials_secret == null ? {} : {
      TLOGISTRY_CREDENTIALS_SECRET = "projects/${var.project_id}/secrets/${var.upstream_credentials_secret}"
    },
  )
}

resource "google_cloudfunctions2_function" "tlogistry" {
  name        = var.name
  location    = var.region
  description = "Pulls public images by tags that cannot move quietly."

  build_config {
    runtime           = var.runtime
    entry_point       = "tlogistry"
    docker_repository = google_artifact_registry_repository.build.id
    service_account   = google_service_account.build.id

    source {
      storage_source {
        bucket     = google_storage_bucket.source.name
        object     = google_storage_bucket_object.source.name
        generation = google_storage_bucket_object.source.generation
      }
    }
  }

  service_config {
    service_account_email            = google_service_account.runtime.email
    environment_variables            = local.environment
    max_instance_request_concurrency = var.concurrency
    available_cpu                    = var.cpu
    available_memory                 = var.memory
    min_instance_count               = var.min_instances
    max_instance_count               = var.max_instances
    timeout_seconds                  = var.timeout_seconds
    ingress_settings                 = var.domain == null ? "ALLOW_ALL" : "ALLOW_INTERNAL_AND_GCLB"
    all_traffic_on_latest_revision   = true
  }

  # Roles and database first. The database and its fields take a minute or more, which also gives the roles time to take hold.
  depends_on = [
    google_artifact_registry_repository_iam_member.build,
    google_firestore_field.not_indexed,
    google_project_iam_member.build_logs,
    google_project_iam_member.build_staged_source,
    google_project_iam_member.records,
    google_secret_manager_secret_iam_member.runtime,
    google_storage_bucket_iam_member.build_source,
  ]

  lifecycle {
    precondition {
      condition     = var.max_instances >= var.min_instances
      error_message = "max_instances is less than min_instances."
    }
  }
}

# Two values and nothing else. No credentials and no cloud: the providers are imitated; `terraform test` runs this anywhere.

mock_provider "google" {
  mock_resource "google_service_account" {
    defaults = {
      email  = "tlogistry@demo-project.iam.gserviceaccount.com"
      member = "serviceAccount:tlogistry@demo-project.iam.gserviceaccount.com"
      id     = "projects/demo-project/serviceAccounts/tlogistry@demo-project.iam.gserviceaccount.com"
    }
  }
  mock_resource "google_cloudfunctions2_function" {
    defaults = {
      service_config = { uri = "https://tlogistry-abc123-ew.a.run.app" }
    }
  }
  mock_resource "google_storage_bucket" {
    defaults = { project_number = 424242 }
  }
  mock_resource "google_storage_bucket_object" {
    defaults = { generation = 17 }
  }
}

mock_provider "archive" {
  mock_data "archive_file" {
    defaults = { output_sha256 = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef" }
  }
}

variables {
  project_id = "demo-project"
  region     = "europe-west1"
}

run "two_values_are_enough" {
  assert {
    condition = alltrue([
      output.host == "tlogistry-abc123-ew.a.run.app",
      output.docker_pull_example == "docker pull tlogistry-abc123-ew.a.run.app/alpine:3.20",
      output.url == "https://tlogistry-abc123-ew.a.run.app",
      output.identity == "tlogistry@demo-project.iam.gserviceaccount.com",
      output.issuer == "https://accounts.google.com",
      output.database == "projects/demo-project/databases/tlogistry",
      output.function == "tlogistry",
    ])
    error_message = "An output is not what README.md promises."
  }

  assert {
    condition     = output.domain_address == null && output.upstream_credentials_command == null && output.not_public == null
    error_message = "An output speaks of something that was not asked for."
  }

  assert {
    condition = google_cloudfunctions2_function.tlogistry.service_config[0].environment_variables == tomap({
      GOOGLE_CLOUD_PROJECT     = "demo-project"
      LOG_EXECUTION_ID         = "false"
      MALLOC_ARENA_MAX         = "2"
      THREADS                  = "128"
      TLOGISTRY_DEADLINE       = "30"
      TLOGISTRY_FORWARDED_HOPS = "1"
      TLOGISTRY_IDENTITIES     = jsonencode([{ email = "tlogistry@demo-project.iam.gserviceaccount.com", issuer = "https://accounts.google.com" }])
      TLOGISTRY_LOG_SEARCH     = "on"
      TLOGISTRY_STORE          = "firestore:projects/demo-project/databases/tlogistry"
      TLOGISTRY_TRUST          = "production"
    })
    error_message = "The function's environment is not complete, or holds something that it does not need."
  }

  assert {
    condition     = google_cloudfunctions2_function.tlogistry.service_config[0].max_instance_request_concurrency == 128
    error_message = "Concurrency and threads differ."
  }

  assert {
    condition     = google_cloudfunctions2_function.tlogistry.service_config[0].service_account_email == google_service_account.runtime.email
    error_message = "The function does not run as the account that signs."
  }

  assert {
    condition     = google_project_iam_custom_role.records.permissions == toset(["datastore.entities.get", "datastore.entities.create"])
    error_message = "The role on the records is not write-once."
  }

  assert {
    condition     = google_project_iam_member.records.condition[0].expression == "resource.name == \"projects/demo-project/databases/tlogistry\""
    error_message = "The role is not limited to the database of records."
  }

  assert {
    condition     = google_project_iam_member.build_staged_source.condition[0].expression == "resource.name.startsWith(\"projects/_/buckets/gcf-v2-sources-424242-europe-west1\")"
    error_message = "The build account can read buckets that are not its business."
  }

  assert {
    condition = (
      google_cloudfunctions2_function.tlogistry.build_config[0].service_account == google_service_account.build.id &&
      google_cloudfunctions2_function.tlogistry.build_config[0].docker_repository == google_artifact_registry_repository.build.id
    )
    error_message = "The build uses somebody else's account or repository."
  }

  assert {
    condition = (
      google_storage_bucket_object.source.name == "source-5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef.zip" &&
      google_cloudfunctions2_function.tlogistry.build_config[0].source[0].storage_source[0].generation == 17
    )
    error_message = "A changed source would not be built."
  }

  assert {
    condition     = data.archive_file.source.output_file_mode == "0644"
    error_message = "The zip depends on the umask."
  }

  assert {
    condition = (
      google_firestore_database.records[0].deletion_policy == "ABANDON" &&
      google_firestore_database.records[0].delete_protection_state == "DELETE_PROTECTION_ENABLED" &&
      google_firestore_database.records[0].point_in_time_recovery_enablement == "POINT_IN_TIME_RECOVERY_ENABLED"
    )
    error_message = "Records could be lost."
  }

  assert {
    condition     = google_firestore_database.records[0].location_id == "europe-west1"
    error_message = "The records are not where the function is."
  }

  assert {
    condition     = toset(keys(google_firestore_field.not_indexed)) == toset(["sightings.tag", "sightings.bundle", "claims.tag", "claims.digest"])
    error_message = "A field of the documents is indexed."
  }

  assert {
    condition     = length(google_project_service.api) == 12 && alltrue([for api in google_project_service.api : !api.disable_on_destroy])
    error_message = "destroy would switch an API off that something else may use."
  }

  assert {
    condition     = !contains(keys(google_project_service.api), "compute.googleapis.com")
    error_message = "The Compute API is only needed for a domain."
  }

  assert {
    condition = (
      google_cloud_run_v2_service_iam_member.everybody[0].member == "allUsers" &&
      google_cloud_run_v2_service_iam_member.everybody[0].role == "roles/run.invoker" &&
      google_cloudfunctions2_function.tlogistry.service_config[0].ingress_settings == "ALLOW_ALL"
    )
    error_message = "Nobody could pull."
  }

  assert {
    condition     = length(google_compute_global_forwarding_rule.domain) + length(google_compute_global_address.domain) + length(google_compute_security_policy.domain) == 0
    error_message = "A load balancer costs money and was not asked for."
  }

  assert {
    condition     = length(google_secret_manager_secret.upstream_credentials) == 0
    error_message = "A secret was not asked for."
  }

  assert {
    condition     = toset(keys(google_logging_metric.verdict)) == toset(["moved", "first_seen", "could_not_tell", "rate_limited"])
    error_message = "A metric is missing."
  }

  assert {
    condition = (
      google_logging_metric.verdict["moved"].name == "tlogistry/moved" &&
      google_logging_metric.verdict["moved"].filter == "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"tlogistry\" AND resource.labels.location=\"europe-west1\" AND jsonPayload.verdict=\"moved\"" &&
      google_monitoring_alert_policy.moved[0].conditions[0].condition_matched_log[0].filter == google_logging_metric.verdict["moved"].filter
    )
    error_message = "A tag that moved would not be counted or not be reported."
  }

  assert {
    condition = (
      google_monitoring_alert_policy.could_not_tell[0].conditions[0].condition_prometheus_query_language[0].query
      == "sum(increase(logging_googleapis_com:user_tlogistry_could_not_tell{monitored_resource=\"cloud_run_revision\"}[5m])) > 5"
    )
    error_message = "The alert asks for a metric that does not exist."
  }

  assert {
    condition     = alltrue([for metric in google_logging_metric.verdict : length(metric.metric_descriptor[0].labels) == 0])
    error_message = "A label of a metric would hold what strangers choose."
  }

  assert {
    condition     = length(google_monitoring_notification_channel.email) == 0 && length(google_monitoring_alert_policy.moved[0].notification_channels) == 0
    error_message = "Nobody asked for mail."
  }

  assert {
    condition     = length(jsondecode(google_monitoring_dashboard.tlogistry[0].dashboard_json).mosaicLayout.tiles) == 7
    error_message = "The dashboard is not complete."
  }
}

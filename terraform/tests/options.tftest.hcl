# Every option used. The providers are imitated.

mock_provider "google" {
  mock_resource "google_service_account" {
    defaults = {
      email  = "signer-2027@demo-project.iam.gserviceaccount.com"
      member = "serviceAccount:signer-2027@demo-project.iam.gserviceaccount.com"
      id     = "projects/demo-project/serviceAccounts/signer-2027@demo-project.iam.gserviceaccount.com"
    }
  }
  mock_resource "google_cloudfunctions2_function" {
    defaults = {
      service_config = { uri = "https://tag-log-abc123-ew.a.run.app" }
    }
  }
  mock_resource "google_compute_global_address" {
    defaults = { address = "203.0.113.7" }
  }
  mock_resource "google_monitoring_notification_channel" {
    defaults = { id = "projects/demo-project/notificationChannels/1" }
  }
}

mock_provider "archive" {}

variables {
  project_id = "demo-project"
  region     = "europe-west1"
}

run "everything" {
  variables {
    name                        = "tag-log"
    labels                      = { team = "platform" }
    service_account_id          = "signer-2027"
    accepted_identities         = [{ email = "tag-log@demo-project.iam.gserviceaccount.com", issuer = "https://accounts.google.com" }]
    trust_config                = "../tests/vectors/sigstore/trust-v1.json"
    rekor_url                   = "https://rekor.example.com"
    fulcio_url                  = "https://fulcio.example.com"
    log_search                  = false
    database_name               = "records"
    firestore_location          = "eur3"
    domain                      = "tags.example.com"
    requests_per_minute         = 600
    upstream_credentials_secret = "registry-accounts"
    new_tag_limits              = { per_client = "50/60s", total = "off", per_day = "1000" }
    allow_upstreams             = ["docker.io", "*.example.com"]
    deny_upstreams              = ["evil.example.com"]
    runtime                     = "python314"
    concurrency                 = 200
    cpu                         = "2"
    memory                      = "2Gi"
    min_instances               = 1
    max_instances               = 50
    deadline_seconds            = 20
    timeout_seconds             = 3600
    alert_email                 = "ops@example.com"
    notification_channels       = ["projects/demo-project/notificationChannels/2"]
    could_not_tell_threshold    = 0
  }

  assert {
    condition = google_cloudfunctions2_function.tlogistry.service_config[0].environment_variables == tomap({
      GOOGLE_CLOUD_PROJECT         = "demo-project"
      LOG_EXECUTION_ID             = "false"
      MALLOC_ARENA_MAX             = "2"
      THREADS                      = "200"
      TLOGISTRY_ALLOW_UPSTREAMS    = jsonencode(["docker.io", "*.example.com"])
      TLOGISTRY_CREDENTIALS_SECRET = "projects/demo-project/secrets/registry-accounts"
      TLOGISTRY_DEADLINE           = "20"
      TLOGISTRY_DENY_UPSTREAMS     = jsonencode(["evil.example.com"])
      TLOGISTRY_FORWARDED_HOPS     = "2"
      TLOGISTRY_IDENTITIES = jsonencode([
        { email = "signer-2027@demo-project.iam.gserviceaccount.com", issuer = "https://accounts.google.com" },
        { email = "tag-log@demo-project.iam.gserviceaccount.com", issuer = "https://accounts.google.com" },
      ])
      TLOGISTRY_LOG_SEARCH          = "off"
      TLOGISTRY_NEW_TAGS_PER_CLIENT = "50/60s"
      TLOGISTRY_NEW_TAGS_PER_DAY    = "1000"
      TLOGISTRY_NEW_TAGS_TOTAL      = "off"
      TLOGISTRY_OWN_HOSTS           = jsonencode(["tags.example.com"])
      TLOGISTRY_STORE               = "firestore:projects/demo-project/databases/records"
      TLOGISTRY_TRUST               = "trust-config.json"
    })
    error_message = "The function's environment is not what was asked for."
  }

  assert {
    condition = alltrue([
      for setting, wanted in {
        max_instance_request_concurrency = "200", available_cpu = "2", available_memory = "2Gi", min_instance_count = "1",
        max_instance_count               = "50", timeout_seconds = "3600", ingress_settings = "ALLOW_INTERNAL_AND_GCLB"
      } : tostring(google_cloudfunctions2_function.tlogistry.service_config[0][setting]) == wanted
    ])
    error_message = "A setting of the function is not what was asked for."
  }

  assert {
    condition     = google_cloudfunctions2_function.tlogistry.name == "tag-log" && google_cloudfunctions2_function.tlogistry.build_config[0].runtime == "python314"
    error_message = "Name or runtime is not what was asked for."
  }

  assert {
    condition     = google_firestore_database.records[0].location_id == "eur3" && google_firestore_database.records[0].name == "records"
    error_message = "The database is not where it was asked for."
  }

  # The trust configuration goes along, with the log and the authority that were named.
  assert {
    condition = one([
      for file in data.archive_file.source.source : jsondecode(file.content).signingConfig.rekorTlogUrls[0].url if file.filename == "trust-config.json"
    ]) == "https://rekor.example.com"
    error_message = "Rekor is not the one that was named."
  }

  assert {
    condition = one([
      for file in data.archive_file.source.source : jsondecode(file.content).signingConfig.caUrls[0].url if file.filename == "trust-config.json"
    ]) == "https://fulcio.example.com"
    error_message = "Fulcio is not the one that was named."
  }

  assert {
    condition = one([
      for file in data.archive_file.source.source : jsondecode(file.content).trustedRoot if file.filename == "trust-config.json"
    ]) == jsondecode(file("../tests/vectors/sigstore/trust-v1.json")).trustedRoot
    error_message = "The trusted root is not the file's."
  }

  # The secret: its value is nobody's business here.
  assert {
    condition = (
      google_secret_manager_secret_iam_member.runtime[0].role == "roles/secretmanager.secretAccessor" &&
      google_secret_manager_secret_iam_member.runtime[0].member == google_service_account.runtime.member &&
      output.upstream_credentials_command == "gcloud secrets versions add registry-accounts --project=demo-project --data-file=-"
    )
    error_message = "The secret cannot be read or filled."
  }

  # The domain.
  assert {
    condition = (
      output.host == "tags.example.com" && output.domain_address == "203.0.113.7" &&
      output.docker_pull_example == "docker pull tags.example.com/alpine:3.20" &&
      google_compute_managed_ssl_certificate.domain[0].managed[0].domains == tolist(["tags.example.com"]) &&
      google_compute_region_network_endpoint_group.domain[0].cloud_run[0].service == "tag-log"
    )
    error_message = "The domain does not lead to the function."
  }

  assert {
    condition = anytrue([
      for rule in google_compute_security_policy.domain[0].rule :
      rule.action == "throttle" && try(rule.rate_limit_options[0].rate_limit_threshold[0].count == 600 && rule.rate_limit_options[0].enforce_on_key == "IP", false)
    ])
    error_message = "There is no limit for each client."
  }

  assert {
    condition     = contains(keys(google_project_service.api), "compute.googleapis.com")
    error_message = "The load balancer's API is not enabled."
  }

  # Monitoring.
  assert {
    condition = (
      google_monitoring_alert_policy.moved[0].notification_channels == tolist(["projects/demo-project/notificationChannels/1", "projects/demo-project/notificationChannels/2"]) &&
      google_monitoring_alert_policy.could_not_tell[0].notification_channels == google_monitoring_alert_policy.moved[0].notification_channels
    )
    error_message = "An alert does not reach everybody whom it should."
  }

  assert {
    condition = (
      google_monitoring_alert_policy.could_not_tell[0].conditions[0].condition_prometheus_query_language[0].query
      == "sum(increase(logging_googleapis_com:user_tag_log_could_not_tell{monitored_resource=\"cloud_run_revision\"}[5m])) > 0"
    )
    error_message = "The alert asks for a metric that does not exist."
  }
}

run "everything_switched_off" {
  variables {
    service_account_id    = "signer-2027"
    trust_config          = "../tests/vectors/sigstore/trust-v1.json"
    allow_unauthenticated = false
    enable_apis           = false
    enable_monitoring     = false
    create_database       = false
    alert_email           = "ops@example.com"
  }

  assert {
    condition = 0 == sum([
      length(google_cloud_run_v2_service_iam_member.everybody), length(google_project_service.api), length(google_logging_metric.verdict),
      length(google_monitoring_alert_policy.moved), length(google_monitoring_alert_policy.could_not_tell),
      length(google_monitoring_notification_channel.email), length(google_monitoring_dashboard.tlogistry), length(google_firestore_database.records),
    ])
    error_message = "Something is made that was switched off."
  }

  assert {
    condition     = output.not_public != null && output.database == "projects/demo-project/databases/tlogistry"
    error_message = "It is not said that nobody can pull, or the records have no place."
  }

  assert {
    condition = one([
      for source in data.archive_file.source.source : source.content if source.filename == "trust-config.json"
    ]) == file("../tests/vectors/sigstore/trust-v1.json")
    error_message = "The trust configuration was rewritten."
  }
}

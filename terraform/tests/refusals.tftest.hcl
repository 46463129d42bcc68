# What each input refuses, and what they refuse together: before anything is made, with a sentence that says what is wrong.

mock_provider "google" {
  mock_resource "google_service_account" {
    defaults = { email = "tlogistry@demo-project.iam.gserviceaccount.com" }
  }
}

mock_provider "archive" {}

variables {
  project_id = "demo-project"
  region     = "europe-west1"
}

run "malformed" {
  command = plan

  variables {
    project_id                  = "Demo Project"
    region                      = "europe-west1-b"
    name                        = "Tlogistry_"
    labels                      = { Team = "Platform" }
    service_account_id          = "signer@demo-project.iam.gserviceaccount.com"
    accepted_identities         = [{ email = "not an address", issuer = "https://accounts.google.com" }]
    trust_config                = "versions.tf"
    rekor_url                   = "http://rekor.example.com"
    fulcio_url                  = "fulcio.example.com"
    database_name               = "Records!"
    firestore_location          = "europe"
    domain                      = "https://tags.example.com/"
    requests_per_minute         = 60.5
    upstream_credentials_secret = "projects/demo-project/secrets/registry-accounts"
    new_tag_limits              = { per_client = "500 a minute", per_day = "1000/60s" }
    allow_upstreams             = []
    deny_upstreams              = ["https://evil.example.com"]
    runtime                     = "nodejs22"
    concurrency                 = 128.5
    cpu                         = "0.5"
    memory                      = "256Mi"
    min_instances               = 0.5
    max_instances               = 1.5
    deadline_seconds            = 30.5
    timeout_seconds             = 900.5
    alert_email                 = "ops"
    notification_channels       = ["ops@example.com"]
    could_not_tell_threshold    = 0.5
  }

  expect_failures = [
    var.project_id, var.region, var.name, var.labels, var.service_account_id, var.accepted_identities, var.trust_config, var.rekor_url,
    var.fulcio_url, var.database_name, var.firestore_location, var.domain, var.requests_per_minute, var.upstream_credentials_secret,
    var.runtime, var.concurrency, var.cpu, var.memory, var.min_instances, var.max_instances, var.deadline_seconds, var.timeout_seconds,
    var.alert_email, var.notification_channels, var.could_not_tell_threshold, var.new_tag_limits, var.allow_upstreams, var.deny_upstreams,
  ]
}

run "too_little" {
  command = plan

  variables {
    project_id               = "demo"
    name                     = "short" # service accounts have at least 6 characters
    accepted_identities      = [{ email = "signer@example.com", issuer = "http://accounts.example.com" }]
    trust_config             = "no-such-file.json"
    database_name            = "abc"
    requests_per_minute      = 59
    runtime                  = "python310" # the code needs 3.11
    concurrency              = 1           # a single thread cuts long streams
    min_instances            = -1
    max_instances            = 0
    deadline_seconds         = 0
    timeout_seconds          = 329
    could_not_tell_threshold = -1
  }

  expect_failures = [
    var.project_id, var.name, var.accepted_identities, var.trust_config, var.database_name, var.requests_per_minute, var.runtime,
    var.concurrency, var.min_instances, var.max_instances, var.deadline_seconds, var.timeout_seconds, var.could_not_tell_threshold,
  ]
}

run "too_much" {
  command = plan

  variables {
    name = "a-name-of-25-characters-x" # with -build, longer than a service account's
    accepted_identities = [
      { email = "signer@example.com", issuer = "https://accounts.google.com" },
      { email = "signer@example.com", issuer = "https://accounts.google.com" },
    ]
    requests_per_minute = 1000001
    concurrency         = 1001
    min_instances       = 1001
    max_instances       = 1001
    deadline_seconds    = 301
    timeout_seconds     = 3601
  }

  expect_failures = [
    var.name, var.accepted_identities, var.requests_per_minute, var.concurrency, var.min_instances, var.max_instances, var.deadline_seconds,
    var.timeout_seconds,
  ]
}

run "another_log_without_its_keys_and_the_signer_twice" {
  command = plan

  variables {
    rekor_url           = "https://rekor.example.com"
    accepted_identities = [{ email = "tlogistry@demo-project.iam.gserviceaccount.com", issuer = "https://accounts.google.com" }]
  }

  expect_failures = [data.archive_file.source, google_service_account.runtime]
}

run "more_instances_at_least_than_at_most" {
  command = plan

  variables {
    min_instances = 11
  }

  expect_failures = [google_cloudfunctions2_function.tlogistry]
}

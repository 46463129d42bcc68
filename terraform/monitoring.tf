# What the service says of itself, made into metrics and two alerts (dashboard.tf shows them). Everything is read from its log
# lines: one JSON object for each request by tag, whose `verdict` is one of the words below, among others (lib/app.py).

locals {
  logs = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"${var.name}\" AND resource.labels.location=\"${var.region}\""

  verdicts = {
    moved          = { verdict = "moved", description = "Requests for a tag that moved: refused with 403." }
    first_seen     = { verdict = "first seen", description = "Tags that were signed and logged for the first time." }
    could_not_tell = { verdict = "could not tell", description = "Requests by tag that were answered 503, because it could not be told whether the tag moved." }
    rate_limited   = { verdict = "rate limited", description = "Requests by tag that the registry answered 429." }
  }
  filters = { for key, metric in local.verdicts : key => "${local.logs} AND jsonPayload.verdict=\"${metric.verdict}\"" }

  channels = concat(google_monitoring_notification_channel.email[*].id, var.notification_channels)
}

# No label holds a tag: strangers choose tags, and every value of a label is a time series of its own.
resource "google_logging_metric" "verdict" {
  for_each = var.enable_monitoring ? local.verdicts : {}

  name        = "${var.name}/${each.key}"
  description = each.value.description
  filter      = local.filters[each.key]

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
    unit        = "1"
  }

  depends_on = [google_project_service.api]
}

resource "google_monitoring_notification_channel" "email" {
  count = var.enable_monitoring && var.alert_email != null ? 1 : 0

  display_name = "${var.name}: e-mail"
  type         = "email"
  labels       = { email_address = var.alert_email }

  depends_on = [google_project_service.api]
}

# On the log line itself, so that the message can name the tag.
resource "google_monitoring_alert_policy" "moved" {
  count = var.enable_monitoring ? 1 : 0

  display_name          = "${var.name}: a tag moved"
  combiner              = "OR"
  severity              = "CRITICAL"
  notification_channels = local.channels

  conditions {
    display_name = "A request was refused because its tag moved"
    condition_matched_log {
      filter           = local.filters["moved"]
      label_extractors = { tag = "EXTRACT(jsonPayload.tag)" }
    }
  }

  alert_strategy {
    auto_close = "86400s"
    notification_rate_limit {
      period = "3600s"
    }
  }

  documentation {
    mime_type = "text/markdown"
    content   = <<-EOT
      The tag $${log.extracted_label.tag} points to another digest than the one that was recorded for it. Whoever asked for it got
      403, and nothing that was not recorded was served.

      Either its publisher moved it, or somebody else did. Look at both digests in the log line, at the record under
      /sightings/ and at what the publisher says. Pulling by digest works meanwhile. See docs/operations.md.
    EOT
  }

  depends_on = [google_project_service.api]
}

# PromQL without validation of the metric: a threshold on a metric that was made a moment ago is refused for up to ten minutes,
# and would make every first `terraform apply` fail (hashicorp/terraform-provider-google issue 11102).
resource "google_monitoring_alert_policy" "could_not_tell" {
  count = var.enable_monitoring ? 1 : 0

  display_name          = "${var.name}: could not tell"
  combiner              = "OR"
  severity              = "ERROR"
  notification_channels = local.channels

  conditions {
    display_name = "More than ${var.could_not_tell_threshold} requests by tag in five minutes ended with 503"
    condition_prometheus_query_language {
      query = format(
        "sum(increase(logging_googleapis_com:user_%s{monitored_resource=\"cloud_run_revision\"}[5m])) > %d",
        replace(google_logging_metric.verdict["could_not_tell"].name, "/[^A-Za-z0-9]/", "_"),
        var.could_not_tell_threshold,
      )
      duration                  = "0s"
      evaluation_interval       = "60s"
      disable_metric_validation = true
    }
  }

  alert_strategy {
    auto_close = "3600s"
  }

  documentation {
    mime_type = "text/markdown"
    content   = <<-EOT
      Requests by tag are answered 503: the log, the certificate authority, the store, the identity or a registry is out of reach,
      or a record does not verify. Nothing is served that was not checked, so pulls by tag fail until this ends; pulls by digest
      go on.

      The field `reason` of the log lines with the verdict "could not tell" says which of them it is. See docs/operations.md.
    EOT
  }

  depends_on = [google_project_service.api]
}

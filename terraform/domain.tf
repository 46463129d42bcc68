# An own host name, optional: a global load balancer with a managed certificate in front of the function, and the only limit
# for each client that the platform offers. The function then takes no traffic but the load balancer's.

locals {
  with_domain = var.domain == null ? 0 : 1
}

resource "google_compute_global_address" "domain" {
  count = local.with_domain

  name = var.name

  depends_on = [google_project_service.api]
}

resource "google_compute_region_network_endpoint_group" "domain" {
  count = local.with_domain

  name                  = var.name
  region                = var.region
  network_endpoint_type = "SERVERLESS"

  cloud_run {
    service = google_cloudfunctions2_function.tlogistry.name
  }

  depends_on = [google_project_service.api]
}

resource "google_compute_security_policy" "domain" {
  count = local.with_domain

  name        = var.name
  description = "At most ${var.requests_per_minute} requests a minute from one address."

  rule {
    priority    = 1000
    action      = "throttle"
    description = "Limit of each client address."

    match {
      versioned_expr = "SRC_IPS_V1"
      config {
        src_ip_ranges = ["*"]
      }
    }

    rate_limit_options {
      conform_action = "allow"
      exceed_action  = "deny(429)"
      enforce_on_key = "IP"
      rate_limit_threshold {
        count        = var.requests_per_minute
        interval_sec = 60
      }
    }
  }

  rule {
    priority    = 2147483647
    action      = "allow"
    description = "The rule that every policy must have."

    match {
      versioned_expr = "SRC_IPS_V1"
      config {
        src_ip_ranges = ["*"]
      }
    }
  }

  depends_on = [google_project_service.api]
}

resource "google_compute_backend_service" "domain" {
  count = local.with_domain

  name                  = var.name
  load_balancing_scheme = "EXTERNAL_MANAGED"
  protocol              = "HTTPS"
  security_policy       = google_compute_security_policy.domain[0].id

  backend {
    group = google_compute_region_network_endpoint_group.domain[0].id
  }
}

resource "google_compute_url_map" "domain" {
  count = local.with_domain

  name            = var.name
  default_service = google_compute_backend_service.domain[0].id
}

resource "google_compute_managed_ssl_certificate" "domain" {
  count = local.with_domain

  name = "${var.name}-${substr(sha256(coalesce(var.domain, "-")), 0, 8)}" # another domain, another certificate

  managed {
    domains = [var.domain]
  }

  depends_on = [google_project_service.api]

  lifecycle {
    create_before_destroy = true
  }
}

resource "google_compute_ssl_policy" "domain" {
  count = local.with_domain

  name            = var.name
  profile         = "MODERN"
  min_tls_version = "TLS_1_2"

  depends_on = [google_project_service.api]
}

resource "google_compute_target_https_proxy" "domain" {
  count = local.with_domain

  name             = var.name
  url_map          = google_compute_url_map.domain[0].id
  ssl_certificates = [google_compute_managed_ssl_certificate.domain[0].id]
  ssl_policy       = google_compute_ssl_policy.domain[0].id
}

resource "google_compute_global_forwarding_rule" "domain" {
  count = local.with_domain

  name                  = var.name
  load_balancing_scheme = "EXTERNAL_MANAGED"
  ip_address            = google_compute_global_address.domain[0].id
  port_range            = "443"
  target                = google_compute_target_https_proxy.domain[0].id
}

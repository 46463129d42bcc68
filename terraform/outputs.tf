# What a user, a verifier and the pipeline need. tests/terraform/test_readme.py holds README.md to this file.

locals {
  function_host = trimprefix(google_cloudfunctions2_function.tlogistry.service_config[0].uri, "https://")
  host          = coalesce(var.domain, local.function_host)
}

output "host" {
  description = "Put this and a slash before the name of an image."
  value       = local.host
}

output "docker_pull_example" {
  description = "A first pull."
  value       = "docker pull ${local.host}/alpine:3.20"
}

output "url" {
  description = "The function's own URL. With domain it answers the load balancer only."
  value       = google_cloudfunctions2_function.tlogistry.service_config[0].uri
}

output "identity" {
  description = "Who signs: the e-mail address to verify records with."
  value       = local.signer_email
}

output "issuer" {
  description = "Who vouches for the identity: the OIDC issuer to verify records with."
  value       = local.issuer
}

output "database" {
  description = "The Firestore database that holds the records."
  value       = local.database
}

output "function" {
  description = "Name of the function, and of its Cloud Run service."
  value       = google_cloudfunctions2_function.tlogistry.name
}

output "domain_address" {
  description = "With domain: the address that its A record must point to. The certificate is issued after that."
  value       = one(google_compute_global_address.domain[*].address)
}

output "upstream_credentials_command" {
  description = "With upstream_credentials_secret: how its value is added, {\"registry\": {\"username\": …, \"password\": …}} on standard input."
  value = (
    var.upstream_credentials_secret == null ? null
    : "gcloud secrets versions add ${var.upstream_credentials_secret} --project=${var.project_id} --data-file=-"
  )
}

output "not_public" {
  description = "Without allow_unauthenticated: what stands in the way of a pull."
  value = (
    var.allow_unauthenticated ? null
    : "Google's invoker check refuses every client without an identity token, Docker included. README.md, \"Organisation policies\", has the way round."
  )
}

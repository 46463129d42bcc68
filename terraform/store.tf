# The record store: one named Firestore database, write-once by the role that the function has on it (iam.tf).
#
# `terraform destroy` leaves it. Who loses the records makes every tag look new, and only the log still knows better.

locals {
  database = "projects/${var.project_id}/databases/${var.database_name}"

  # Documents are read and made by name only, so no field needs an index, and an index on a bundle of some kilobytes costs
  # more than the bundle. lib/store/firestore.py has the other half of this list.
  fields = {
    sightings = ["tag", "bundle"]
    claims    = ["tag", "digest"]
  }
}

resource "google_firestore_database" "records" {
  count = var.create_database ? 1 : 0

  name                              = var.database_name
  location_id                       = coalesce(var.firestore_location, var.region)
  type                              = "FIRESTORE_NATIVE"
  app_engine_integration_mode       = "DISABLED"
  point_in_time_recovery_enablement = "POINT_IN_TIME_RECOVERY_ENABLED"
  delete_protection_state           = "DELETE_PROTECTION_ENABLED"
  deletion_policy                   = "ABANDON"

  depends_on = [google_project_service.api]
}

resource "google_firestore_field" "not_indexed" {
  for_each = merge([
    for collection, fields in local.fields : { for field in fields : "${collection}.${field}" => { collection = collection, field = field } }
  ]...)

  database   = var.database_name
  collection = each.value.collection
  field      = each.value.field

  index_config {} # no index at all

  depends_on = [google_firestore_database.records]
}

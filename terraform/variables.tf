# Every input. Only project_id and region have no default. tests/terraform/test_readme.py holds README.md to this file.

variable "project_id" {
  description = "The Google Cloud project."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id))
    error_message = "project_id is 6 to 30 lower-case letters, digits and hyphens (the project's id, not its name or number)."
  }
}

variable "region" {
  description = "Where the function runs, for example europe-west1."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]{1,2}$", var.region))
    error_message = "region is a Google Cloud region such as europe-west1."
  }
}

# What it is called

variable "name" {
  description = "Name of the function, and the beginning of the names of all that belongs to it."
  type        = string
  default     = "tlogistry"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,22}[a-z0-9]$", var.name))
    error_message = "name is 6 to 24 lower-case letters, digits and hyphens; it begins with a letter and does not end with a hyphen."
  }
}

variable "labels" {
  description = "Labels on every resource that can have them."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition = alltrue([
      for key, value in var.labels : can(regex("^[a-z][a-z0-9_-]{0,62}$", key)) && can(regex("^[a-z0-9_-]{0,63}$", value))
    ])
    error_message = "Keys and values of labels are lower-case letters, digits, hyphens and underscores, at most 63; keys begin with a letter."
  }
}

# Whose records count

variable "service_account_id" {
  description = "Account id of the service account that the function runs and signs as; null means name. Another id is another identity."
  type        = string
  default     = null

  validation {
    condition     = var.service_account_id == null || can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.service_account_id))
    error_message = "service_account_id is 6 to 30 lower-case letters, digits and hyphens: the part before the @."
  }
}

variable "accepted_identities" {
  description = "Further identities whose records are accepted, beside the service account's own: former ones, or the next one."
  type        = list(object({ email = string, issuer = string }))
  default     = []
  nullable    = false

  validation {
    condition = alltrue([
      for identity in var.accepted_identities :
      can(regex("^[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,253}$", identity.email)) && can(regex("^https://[^ ]{1,500}$", identity.issuer))
    ])
    error_message = "Each of accepted_identities is an e-mail address and the https URL of its issuer (of service accounts: https://accounts.google.com)."
  }

  validation {
    condition     = length(distinct(var.accepted_identities)) == length(var.accepted_identities)
    error_message = "One of accepted_identities is there twice."
  }
}

# The log

variable "trust_config" {
  description = "Path of a Sigstore ClientTrustConfig (JSON), shipped with the function; null means public Sigstore."
  type        = string
  default     = null

  validation {
    condition = var.trust_config == null || can([
      jsondecode(file(var.trust_config)).trustedRoot, jsondecode(file(var.trust_config)).signingConfig
    ])
    error_message = "trust_config must be the path of a JSON file with trustedRoot and signingConfig."
  }
}

variable "rekor_url" {
  description = "Rekor v1 log to write to, in place of the ones that trust_config names; its key must be in trust_config."
  type        = string
  default     = null

  validation {
    condition     = var.rekor_url == null || can(regex("^https://[A-Za-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._~/-]*)?$", var.rekor_url))
    error_message = "rekor_url is an https URL."
  }
}

variable "fulcio_url" {
  description = "Fulcio certificate authority to use, in place of the ones that trust_config names; its chain must be in trust_config."
  type        = string
  default     = null

  validation {
    condition     = var.fulcio_url == null || can(regex("^https://[A-Za-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._~/-]*)?$", var.fulcio_url))
    error_message = "fulcio_url is an https URL."
  }
}

variable "log_search" {
  description = "Whether the log is searched before a first sighting. The brake for a day on which the log's public index is down."
  type        = bool
  default     = true
  nullable    = false
}

# The store

variable "database_name" {
  description = "Name of the Firestore database that holds the records."
  type        = string
  default     = "tlogistry"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,61}[a-z0-9]$", var.database_name)) || var.database_name == "(default)"
    error_message = "database_name is 4 to 63 lower-case letters, digits and hyphens, beginning with a letter, or (default)."
  }
}

variable "create_database" {
  description = "Whether the database is made here. false uses one that is there, for example the one that destroy left."
  type        = bool
  default     = true
  nullable    = false
}

variable "firestore_location" {
  description = "Location of the database: a region, or nam5, nam7 or eur3; null means region. It cannot be changed later."
  type        = string
  default     = null

  validation {
    condition     = var.firestore_location == null || can(regex("^([a-z]+-[a-z]+[0-9]{1,2}|nam5|nam7|eur3)$", var.firestore_location))
    error_message = "firestore_location is a region such as europe-west1, or nam5, nam7 or eur3."
  }
}

# The way in

variable "allow_unauthenticated" {
  description = "Whether everybody may call the function. Docker cannot sign in to Google's invoker check, so false needs another way in."
  type        = bool
  default     = true
  nullable    = false
}

variable "domain" {
  description = "Own host name, served by a load balancer with a certificate and a rate limit; null means the function's own URL."
  type        = string
  default     = null

  validation {
    condition     = var.domain == null || can(regex("^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?[.])+[a-z]{2,63}$", var.domain))
    error_message = "domain is a host name such as tags.example.com, in lower case and without a final dot."
  }
}

variable "requests_per_minute" {
  description = "With domain: how many requests a minute one client address may make before it is answered 429."
  type        = number
  default     = 1200
  nullable    = false

  validation {
    condition     = var.requests_per_minute >= 60 && var.requests_per_minute <= 1000000 && floor(var.requests_per_minute) == var.requests_per_minute
    error_message = "requests_per_minute is a whole number from 60 to 1000000; one pull is about ten requests."
  }
}

variable "upstream_credentials_secret" {
  description = "Id of a Secret Manager secret to make for accounts at registries (higher rate limits); null means none. Its value never passes through Terraform."
  type        = string
  default     = null

  validation {
    condition     = var.upstream_credentials_secret == null || can(regex("^[A-Za-z0-9_-]{1,255}$", var.upstream_credentials_secret))
    error_message = "upstream_credentials_secret is the secret's id: letters, digits, hyphens and underscores, without projects/…/secrets/."
  }
}

# Who is served what, and how much

variable "new_tag_limits" {
  description = "Tags that one instance records at most: COUNT/SECONDSs, for per_day a number, or off; null means the service's default."
  type        = object({ per_client = optional(string), per_domain = optional(string), total = optional(string), per_day = optional(string) })
  default     = {}
  nullable    = false

  validation {
    condition = alltrue([
      for limit in [var.new_tag_limits.per_client, var.new_tag_limits.per_domain, var.new_tag_limits.total] :
      limit == null || can(regex("^([1-9][0-9]{0,8}/[1-9][0-9]{0,4}s|off)$", limit))
    ])
    error_message = "per_client, per_domain and total of new_tag_limits are COUNT/SECONDSs such as 500/60s, or off."
  }

  validation {
    condition     = var.new_tag_limits.per_day == null || can(regex("^([1-9][0-9]{0,8}|off)$", var.new_tag_limits.per_day))
    error_message = "per_day of new_tag_limits is a number, or off."
  }
}

variable "allow_upstreams" {
  description = "Registries that are served, such as ghcr.io or *.example.com; null means all that are public."
  type        = list(string)
  default     = null

  validation {
    condition = var.allow_upstreams == null || (try(length(var.allow_upstreams), 0) > 0 && alltrue([
      for name in coalesce(var.allow_upstreams, []) : can(regex("^([*][.])?[a-z0-9]([a-z0-9.-]{0,250}[a-z0-9])?$", name))
    ]))
    error_message = "Each of allow_upstreams is a host name in lower case, or *. and one; there is at least one."
  }
}

variable "deny_upstreams" {
  description = "Registries that are not served, nor asked for tokens, nor redirected to; they win over allow_upstreams."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for name in var.deny_upstreams : can(regex("^([*][.])?[a-z0-9]([a-z0-9.-]{0,250}[a-z0-9])?$", name))])
    error_message = "Each of deny_upstreams is a host name in lower case, or *. and one."
  }
}

# The function

variable "runtime" {
  description = "Python runtime of the function."
  type        = string
  default     = "python313"
  nullable    = false

  validation {
    condition     = contains(["python311", "python312", "python313", "python314"], var.runtime)
    error_message = "runtime is python311, python312, python313 or python314."
  }
}

variable "concurrency" {
  description = "Requests that one instance serves at once; also its number of threads. 128 is more than can wait for one registry and for the log together."
  type        = number
  default     = 128
  nullable    = false

  validation {
    condition     = var.concurrency >= 2 && var.concurrency <= 1000 && floor(var.concurrency) == var.concurrency
    error_message = "concurrency is a whole number from 2 to 1000: with one thread the web server cuts long streams."
  }
}

variable "cpu" {
  description = "vCPUs of an instance: less than 1 allows one request at a time only, and one Python process cannot use more than 2."
  type        = string
  default     = "1"
  nullable    = false

  validation {
    condition     = contains(["1", "2"], var.cpu)
    error_message = "cpu is 1 or 2."
  }
}

variable "memory" {
  description = "Memory of an instance."
  type        = string
  default     = "1Gi"
  nullable    = false

  validation {
    condition     = contains(["512Mi", "1Gi", "2Gi", "4Gi"], var.memory)
    error_message = "memory is 512Mi, 1Gi, 2Gi or 4Gi."
  }
}

variable "min_instances" {
  description = "Instances that are kept warm, and paid for."
  type        = number
  default     = 0
  nullable    = false

  validation {
    condition     = var.min_instances >= 0 && var.min_instances <= 1000 && floor(var.min_instances) == var.min_instances
    error_message = "min_instances is a whole number from 0 to 1000."
  }
}

variable "max_instances" {
  description = "Instances at most: the limit of what a flood can cost."
  type        = number
  default     = 10
  nullable    = false

  validation {
    condition     = var.max_instances >= 1 && var.max_instances <= 1000 && floor(var.max_instances) == var.max_instances
    error_message = "max_instances is a whole number from 1 to 1000."
  }
}

variable "deadline_seconds" {
  description = "Seconds in which a request by tag is answered."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.deadline_seconds >= 1 && var.deadline_seconds <= 300 && floor(var.deadline_seconds) == var.deadline_seconds
    error_message = "deadline_seconds is a whole number from 1 to 300."
  }
}

variable "timeout_seconds" {
  description = "Seconds after which Cloud Run cuts any request; a blob that a registry streams itself can take long."
  type        = number
  default     = 900
  nullable    = false

  validation {
    condition     = var.timeout_seconds >= 330 && var.timeout_seconds <= 3600 && floor(var.timeout_seconds) == var.timeout_seconds
    error_message = "timeout_seconds is a whole number from 330 to 3600: more than the longest deadline_seconds, or answers that are still to come are cut."
  }
}

# What is made besides

variable "enable_apis" {
  description = "Whether the Google APIs that are needed are enabled here."
  type        = bool
  default     = true
  nullable    = false
}

variable "enable_monitoring" {
  description = "Whether log-based metrics, alerts and a dashboard are made."
  type        = bool
  default     = true
  nullable    = false
}

variable "alert_email" {
  description = "Address that alerts are mailed to; null means none."
  type        = string
  default     = null

  validation {
    condition     = var.alert_email == null || can(regex("^[^@ ]+@[^@ ]+[.][^@ ]+$", var.alert_email))
    error_message = "alert_email is an e-mail address."
  }
}

variable "notification_channels" {
  description = "Existing notification channels that alerts go to as well (projects/…/notificationChannels/…)."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for channel in var.notification_channels : can(regex("^projects/[^/]+/notificationChannels/[0-9]+$", channel))])
    error_message = "Each of notification_channels is projects/PROJECT/notificationChannels/NUMBER."
  }
}

variable "could_not_tell_threshold" {
  description = "Requests in five minutes that end with 503, could not tell, before the alert fires."
  type        = number
  default     = 5
  nullable    = false

  validation {
    condition     = var.could_not_tell_threshold >= 0 && floor(var.could_not_tell_threshold) == var.could_not_tell_threshold
    error_message = "could_not_tell_threshold is a whole number, 0 or more."
  }
}

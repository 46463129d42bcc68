# The dashboard: one chart for each question that an operator asks first, and the log lines that matter below.

locals {
  run_metric = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"${var.name}\" AND resource.labels.location=\"${var.region}\" AND metric.type=\"run.googleapis.com/%s\""

  charts = [
    {
      title = "Verdicts on tags, a minute"
      lines = [for key in keys(local.verdicts) : {
        legend = local.verdicts[key].verdict
        filter = "resource.type=\"cloud_run_revision\" AND metric.type=\"logging.googleapis.com/user/${var.name}/${key}\""
        align  = "ALIGN_DELTA", reduce = "REDUCE_SUM", group = []
      }]
    },
    {
      title = "Requests a second, by status"
      lines = [{
        legend = "$${metric.labels.response_code_class}"
        filter = format(local.run_metric, "request_count")
        align  = "ALIGN_RATE", reduce = "REDUCE_SUM", group = ["metric.labels.response_code_class"]
      }]
    },
    {
      title = "Time of an answer, ms"
      lines = [for percentile in ["50", "95", "99"] : {
        legend = "p${percentile}"
        filter = format(local.run_metric, "request_latencies")
        align  = "ALIGN_DELTA", reduce = "REDUCE_PERCENTILE_${percentile}", group = []
      }]
    },
    {
      title = "Instances"
      lines = [{
        legend = "$${metric.labels.state}"
        filter = format(local.run_metric, "container/instance_count")
        align  = "ALIGN_MAX", reduce = "REDUCE_SUM", group = ["metric.labels.state"]
      }]
    },
    {
      title = "Start of an instance, ms"
      lines = [for percentile in ["50", "95"] : {
        legend = "p${percentile}"
        filter = format(local.run_metric, "container/startup_latencies")
        align  = "ALIGN_DELTA", reduce = "REDUCE_PERCENTILE_${percentile}", group = []
      }]
    },
    {
      title = "Memory in use, share of an instance's"
      lines = [{
        legend = "p99"
        filter = format(local.run_metric, "container/memory/utilizations")
        align  = "ALIGN_DELTA", reduce = "REDUCE_PERCENTILE_99", group = []
      }]
    },
  ]

  chart_tiles = [for index, chart in local.charts : {
    xPos = 24 * (index % 2), yPos = 16 * floor(index / 2), width = 24, height = 16
    widget = {
      title = chart.title
      xyChart = {
        dataSets = [for line in chart.lines : {
          plotType       = "LINE"
          legendTemplate = line.legend
          timeSeriesQuery = {
            timeSeriesFilter = {
              filter = line.filter
              aggregation = {
                alignmentPeriod = "60s", perSeriesAligner = line.align, crossSeriesReducer = line.reduce, groupByFields = line.group
              }
            }
          }
        }]
      }
    }
  }]

  log_tile = {
    xPos = 0, yPos = 16 * ceil(length(local.charts) / 2), width = 48, height = 16
    widget = {
      title = "Tags that moved, and what could not be told"
      logsPanel = {
        filter = "${local.logs} AND (jsonPayload.verdict=\"moved\" OR jsonPayload.verdict=\"could not tell\")"
      }
    }
  }
}

resource "google_monitoring_dashboard" "tlogistry" {
  count = var.enable_monitoring ? 1 : 0

  dashboard_json = jsonencode({
    displayName  = var.name
    mosaicLayout = { columns = 48, tiles = concat(local.chart_tiles, [local.log_tile]) }
  })

  # Its charts name the metrics, which must be there to be shown.
  depends_on = [google_logging_metric.verdict]
}

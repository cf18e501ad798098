"""The Grafana boards under ``cluster/boards``, written by ``python -m gristmill.cluster.panels``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BOARDS = Path(__file__).resolve().parent / "boards"
PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}
WIDTH, HEIGHT = 8, 8  # of a panel, on Grafana's grid of 24 columns


@dataclass(frozen=True)
class Panel:
    """One panel: queries with the legend of each, and the unit as Grafana names it."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: str = "timeseries"  # or stat
    about: str = ""
    least: float | None = 0.0  # of the axis


def _one(title: str, query: str, legend: str = "", unit: str = "short", **more: Any) -> Panel:
    return Panel(title, ((query, legend),), unit, **more)


RUN = '{run=~"$run"}'
PIPELINE = (
    _one("Progress of the whole run", f"max by (run) (ray_gristmill_run_progress{RUN})", "{{run}}", "percentunit"),
    _one("Progress of steps", f"max by (run, step) (ray_gristmill_step_progress{RUN})", "{{step}}", "percentunit"),
    _one("Time remaining", f"max by (run, step) (ray_gristmill_step_eta_seconds{RUN})", "{{step}}", "s"),
    _one("Shards waiting", f"sum by (run, step) (ray_gristmill_shards_waiting{RUN})", "{{step}}"),
    Panel(
        "Records",
        (
            (f"sum(rate(ray_gristmill_records_in_total{RUN}[$__rate_interval]))", "in"),
            (f"sum(rate(ray_gristmill_records_out_total{RUN}[$__rate_interval]))", "out"),
        ),
        "cps",
    ),
    _one(
        "Rejected, by stage and reason",
        f"sum by (stage, reason) (ray_gristmill_records_rejected_total{RUN})",
        "{{stage}}: {{reason}}",
    ),
    _one("Quarantined", f"sum by (step) (ray_gristmill_records_quarantined_total{RUN})", "{{step}}"),
    _one(
        "Audio, times real time",
        f"sum by (step) (rate(ray_gristmill_audio_seconds_total{RUN}[$__rate_interval]))",
        "{{step}}",
        "none",
    ),
    Panel(
        "Seconds of work in a shard",
        tuple(
            (
                f"histogram_quantile({q}, sum by (step, le) (rate(ray_gristmill_shard_seconds_bucket{RUN}[10m])))",
                f"{{{{step}}}} {name}",
            )
            for q, name in ((0.5, "median"), (0.95, "95 %"))
        ),
        "s",
    ),
    _one("Bytes written", f"sum by (step) (ray_gristmill_bytes_written_total{RUN})", "{{step}}", "bytes"),
    _one(
        "Batches retried",
        f"sum by (step, cause) (ray_gristmill_batches_retried_total{RUN})",
        "{{step}}: {{cause}}",
        about="A batch is halved when memory runs out, or to find the record that breaks a stage.",
    ),
    _one(
        "Means of measured columns",
        f"max by (step, stage, column) (ray_gristmill_measure_mean{RUN})",
        "{{step}}: {{column}}",
        about="label_entropy in nats per frame, snr in dB, confidence 0 to 1.",
        least=None,
    ),
    _one("Cost so far", f"sum by (run) (ray_gristmill_cost{RUN})", "{{run}}", kind="stat"),
    _one("Progress of trainings", f"ray_gristmill_training_progress{RUN}", "{{training}}", "percentunit"),
    _one("Loss of trainings", f"ray_gristmill_training_loss{RUN}", "{{training}}", "none"),
)
FLEET = (
    _one(
        "GPU stages: busy share",
        f"max by (run, step, stage) (ray_gristmill_gpu_busy_share{RUN})",
        "{{step}}: {{stage}}",
        "percentunit",
        about="Seconds of work on committed shards over the time since the step began, times workers.",
    ),
    _one("Workers in full pools", f"max by (step, stage) (ray_gristmill_stage_workers{RUN})", "{{step}}: {{stage}}"),
    _one(
        "Busy workers",
        f"sum by (step, stage) (rate(ray_gristmill_stage_busy_seconds_total{RUN}[$__rate_interval]))",
        "{{step}}: {{stage}}",
        "none",
    ),
    Panel(
        "GPUs",
        (('sum(ray_resources{Name="GPU"})', "total"), ('sum(ray_resources{Name="GPU",State="USED"})', "used")),
    ),
    Panel(
        "CPUs",
        (('sum(ray_resources{Name="CPU"})', "total"), ('sum(ray_resources{Name="CPU",State="USED"})', "used")),
    ),
    _one("Nodes", 'count(count by (NodeAddress) (ray_resources{NodeAddress!=""}))', "nodes", kind="stat"),
    _one("Processor use", "avg by (ip) (ray_node_cpu_utilization)", "{{ip}}", "percent"),
    _one("Memory used", "sum by (ip) (ray_node_mem_used)", "{{ip}}", "bytes"),
    _one("Disk free", "min by (ip) (ray_node_disk_free)", "{{ip}}", "bytes"),
    _one("Object store, by place", "sum by (Location) (ray_object_store_memory)", "{{Location}}", "bytes"),
    _one("Actors, by state", "sum by (State) (ray_actors)", "{{State}}"),
    _one("Tasks, by state", "sum by (State) (ray_tasks)", "{{State}}"),
)
# Series that exist only on nodes with a GPU that Ray can monitor.
DEVICES = (
    _one("GPU utilisation", "avg by (ip, GpuIndex) (ray_node_gpus_utilization)", "{{ip}} {{GpuIndex}}", "percent"),
    _one("GPU memory used", "sum by (ip, GpuIndex) (ray_node_gram_used)", "{{ip}} {{GpuIndex}}", "decmbytes"),
)


def board(uid: str, title: str, panels: tuple[Panel, ...]) -> dict[str, Any]:
    """Return a board in Grafana's import format, with the data source and the run as variables."""
    return {
        "uid": uid,
        "title": title,
        "tags": ["gristmill", "ray"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "",
        "annotations": {"list": []},
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Data source",
                    "type": "datasource",
                    "query": "prometheus",
                    "refresh": 1,
                },
                {
                    "name": "run",
                    "label": "Run",
                    "type": "query",
                    "datasource": PROMETHEUS,
                    "query": {"query": "label_values(ray_gristmill_cost, run)", "refId": "run"},
                    "refresh": 2,
                    "sort": 1,
                    "multi": True,
                    "includeAll": True,
                    "allValue": ".*",
                    "current": {"text": ["All"], "value": ["$__all"]},
                },
            ]
        },
        "panels": [_panel(number, panel) for number, panel in enumerate(panels)],
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    across = 24 // WIDTH
    made = {
        "id": number + 1,
        "type": panel.kind,
        "title": panel.title,
        "datasource": PROMETHEUS,
        "gridPos": {"h": HEIGHT, "w": WIDTH, "x": number % across * WIDTH, "y": number // across * HEIGHT},
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": PROMETHEUS, "expr": query, "legendFormat": legend}
            for place, (query, legend) in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": panel.least}, "overrides": []},
        "options": {},
    }
    return made | ({"description": panel.about} if panel.about else {})


def boards() -> dict[str, dict[str, Any]]:
    """Return the boards by file name."""
    return {
        "pipeline.json": board("gristmill-pipeline", "Gristmill: pipeline", PIPELINE),
        "fleet.json": board("gristmill-fleet", "Gristmill: fleet and GPUs", FLEET + DEVICES),
    }


if __name__ == "__main__":
    for name, made in boards().items():
        (BOARDS / name).write_text(json.dumps(made, indent=1) + "\n")

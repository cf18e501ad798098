"""The series of a run, as Prometheus scrapes them from a running cluster, and the boards that show them."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from gristmill.cluster import metrics, panels
from gristmill.shards.stage import Resources
from tests.cluster.heads import end
from tests.cluster.watched import Watched, answers, wait
from tests.ports import free_ports

pytestmark = pytest.mark.timeout(900)  # the cluster is started within the first test
BOARDS = panels.boards()
QUERIES = [
    pytest.param(panel, query, id=f"{name}: {panel.title}: {legend}")
    for name, shown in (("pipeline", panels.PIPELINE), ("fleet", panels.FLEET))
    for panel in shown
    for query, legend in panel.queries
]


@pytest.mark.parametrize(
    ("reason", "fixed"),
    [
        ("too short", "too short"),
        ("text is longer than 600 characters", "text is longer than"),
        ("unknown voice espeak:en-us+m7", "unknown voice espeak"),
        ("'/data/x.wav' is not there", "other"),
        ("x" * 200, "x" * 60),
    ],
)
def test_reasons_are_few(reason: str, fixed: str) -> None:
    assert metrics.fixed_part(reason) == fixed


def test_cost_of_a_worker() -> None:
    assert metrics.Price(cpu_hour=0.1, gpu_hour=2.0).of(1800, Resources(cpus=4, gpus=0.5)) == pytest.approx(0.7)


def test_boards_are_as_their_source_says() -> None:
    assert {path.name for path in panels.BOARDS.iterdir()} == set(BOARDS)
    for name, made in BOARDS.items():
        assert json.loads((panels.BOARDS / name).read_text()) == made, "run `python -m gristmill.cluster.panels`"


@pytest.mark.parametrize("name", BOARDS)
def test_boards_have_grafanas_import_format(name: str) -> None:
    made = BOARDS[name]
    assert [variable["name"] for variable in made["templating"]["list"]] == ["datasource", "run"]
    places = set()
    for panel in made["panels"]:
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        places.add((panel["gridPos"]["x"], panel["gridPos"]["y"]))
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0
    assert len(places) == len({panel["id"] for panel in made["panels"]}) == len(made["panels"])


def test_panels_of_devices_name_series_of_ray() -> None:
    agent = pytest.importorskip("ray.dashboard.modules.reporter.reporter_agent")
    for panel in panels.DEVICES:
        for query, _ in panel.queries:
            names = re.findall(r"ray_(\w+)", query)
            assert names
            assert set(names) <= set(agent.METRICS_GAUGES)


def samples(cluster: Watched) -> dict[str, dict[tuple[str, ...], float]]:
    """The series of the project: name -> values of labels (stage, reason, cause or column) -> value."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families((answers(f"{cluster.metrics}/metrics") or b"").decode()):
        for sample in family.samples:
            if sample.name.startswith("ray_gristmill_"):
                keys = ("step", "training", "stage", "reason", "cause", "column", "le")
                key = tuple(sample.labels[name] for name in keys if name in sample.labels)
                found.setdefault(sample.name.removeprefix("ray_gristmill_"), {})[key] = sample.value
    return found


def test_series_of_a_run(watched_cluster: Watched) -> None:
    step = ("labelled",)
    wait(
        lambda: (
            samples(watched_cluster).get("shards_waiting", {}).get(step) == 0.0
            and samples(watched_cluster)["records_in_total"][step] == 24
            and "training_loss" in samples(watched_cluster)
        ),
        60,
        watched_cluster.folder / "log",
    )
    found = samples(watched_cluster)
    counts = {name: found[f"{name}_total"][step] for name in ("records_in", "records_out", "records_quarantined")}
    assert counts == {"records_in": 24, "records_out": 21, "records_quarantined": 1}
    assert found["records_rejected_total"] == {("labelled", "checks", "louder than r"): 2}
    assert found["audio_seconds_total"][step] == 42.0
    assert found["bytes_written_total"][step] == sum(
        path.stat().st_size for path in watched_cluster.out.glob("labelled/*/*/*.parquet")
    )
    assert found["batches_retried_total"]["labelled", "memory"] >= 1
    assert found["batches_retried_total"]["labelled", "error"] in (
        1,
        2,
    )  # of four records, or of the two left by a want of memory
    assert found["shard_seconds_bucket"]["labelled", "+Inf"] == 6
    assert found["measure_mean"]["labelled", "labels", "label_entropy"] == pytest.approx(0.5)
    assert -5.0 <= found["measure_mean"]["labelled", "labels", "snr"] <= -3.0
    assert found["stage_busy_seconds_total"]["labelled", "labels"] >= 21 * 0.05
    assert found["step_progress"][step] == 1.0
    assert next(iter(found["cost"].values())) > 0
    assert found["training_progress"] == {("student",): 0.5}
    assert list(found["run_progress"].values()) == [0.25]
    assert found["training_loss"][("student",)] == pytest.approx(0.2)
    names = {name.removesuffix(end) for name in found for end in ("_total", "_bucket", "_count", "_sum")}
    assert set(metrics.COUNTERS) | set(metrics.GAUGES) | set(metrics.HISTOGRAMS) <= names | set(found)


def test_processes_of_a_cluster_that_was_joined_know_its_address(watched_cluster: Watched) -> None:
    assert (watched_cluster.out / "asked").read_text() == watched_cluster.address


def ask(url: str, query: str) -> list[dict]:
    with urllib.request.urlopen(f"{url}/api/v1/query?{urllib.parse.urlencode({'query': query})}", timeout=10) as answer:
        return json.load(answer)["data"]["result"]


@pytest.fixture(scope="module")
def prometheus(watched_cluster: Watched, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that has scraped the cluster more than once, by the project's own configuration."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed (Debian: `apt-get install prometheus`)")
    folder = tmp_path_factory.mktemp("prometheus")
    given = yaml.safe_load((Path(metrics.__file__).parent / "prometheus.yml").read_text())
    discovery = given["scrape_configs"][0]["file_sd_configs"][0]
    assert discovery["files"] == ["/tmp/ray/prom_metrics_service_discovery.json"]
    discovery["files"] = [str(watched_cluster.folder / "prom_metrics_service_discovery.json")]
    given["global"] = {"scrape_interval": "2s", "evaluation_interval": "2s"}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(given))
    (port,) = free_ports(1)
    command = [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command += [f"--web.listen-address=127.0.0.1:{port}"]
    url = f"http://127.0.0.1:{port}"
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        wait(lambda: answers(f"{url}/-/ready"), 60, folder / "log", server)
        wait(lambda: ask(url, "min(count_over_time(ray_gristmill_cost[5m])) > 3"), 60, folder / "log", server)
        yield url
    finally:
        end(server, 0)


@pytest.mark.parametrize(("panel", "query"), QUERIES)
def test_each_query_of_the_boards_has_a_series(prometheus: str, panel: panels.Panel, query: str) -> None:
    asked = query.replace("$run", ".*").replace("$__rate_interval", "1m")
    for _ in range(40):
        found = ask(prometheus, asked)
        if found:
            break
        time.sleep(0.5)
    assert found, f"{panel.title}: nothing is there for {asked}"
    if "quantile" not in query:  # over the last minutes, in which no shard may have ended
        assert all(math.isfinite(float(series["value"][1])) for series in found)

"""The chart as Helm renders it, in each way that somebody would install it."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import tools

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/chart"
RELEASE, NAMESPACE = "pictures", "generators"
DIGEST = "sha256:" + "0" * 64

CPU, GPU = ["--values", "values-cpu.yaml"], ["--values", "values-gpu.yaml"]
EGRESS = [{"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}], "ports": [{"port": 443, "protocol": "TCP"}]}]
FLAVOURS: dict[str, list[str]] = {
    "plain": [],
    "cpu": CPU,
    "gpu": GPU,
    "keda": [*CPU, "--set", "autoscaler.kind=keda"],
    "one": ["--set", "replicas=1"],
    "claim": ["--set", "bundles.source=claim,bundles.claim=bundles"],
    "oci": [*CPU, "--set", f"bundles.source=oci,bundles.oci.reference=registry.example/bundles@{DIGEST}"],
    "keys": [
        *(*CPU, "--set", f"apiKeysSecret=keys,image.digest={DIGEST},priorityClassName=high"),
        *("--set", "settings.METRICS_NEED_KEY=true"),
        *("--set", "monitoring.serviceMonitor.authorization.credentials.name=scraper"),
        *("--set", "monitoring.serviceMonitor.authorization.credentials.key=key"),
    ],
    "traces": [
        *(*CPU, "--set", "settings.TRACING=otlp,environmentSecret=traces"),
        *("--set", "environment.OTEL_EXPORTER_OTLP_ENDPOINT=http://collector.monitoring.svc:4318"),
        *("--set-json", f"networkPolicy.egress={json.dumps(EGRESS)}"),
    ],
    "gpu-nodes": [*GPU, "--set", "gpu.nodeSelector.gpu=one,nodeSelector.zone=here,gpu.runtimeClassName=nvidia"],
    "bulk": [*CPU, "--set", "bulk.enabled=true,bulk.out.claim=shards,bulk.out.path=fashion/one,bulk.model=fashion"],
    "bucket": [
        *("--values", "values-gpu.yaml", "--set", "bulk.enabled=true,bulk.out.url=s3://pictures/fashion,bulk.count=0"),
        *("--set-string", "bulk.classes=sneaker=40\\,bag=20,bulk.credentialsSecret=bucket"),
        *("--set-json", f"bulk.egress={json.dumps(EGRESS)}"),
    ],
}

Objects = list[dict[str, Any]]


def tool(name: str) -> str:
    """Where a tool is; without it the test is skipped, but not where all of them can be had."""
    found = tools.find(name)
    if found is None:
        give_up = pytest.fail if os.environ.get("GITHUB_ACTIONS") else pytest.skip
        give_up(f"needs {name}; `make deploy-tools` installs it where it can be had")
    return found


def helm(*arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """Run Helm on the chart."""
    command = [tool("helm"), *arguments]
    return subprocess.run(command, cwd=CHART, check=check, capture_output=True, text=True)


def template(*values: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """Render the chart."""
    return helm("template", RELEASE, ".", "--namespace", NAMESPACE, *values, check=check)


@pytest.fixture(scope="session", name="tool")
def give_tool() -> Any:
    return tool


@pytest.fixture(scope="session", name="helm")
def give_helm() -> Any:
    return helm


@pytest.fixture(scope="session", name="template")
def give_template() -> Any:
    return template


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file of objects for each flavour."""
    directory = tmp_path_factory.mktemp("rendered")
    for flavour, values in FLAVOURS.items():
        (directory / f"{flavour}.yaml").write_text(template(*values).stdout)
    return {flavour: directory / f"{flavour}.yaml" for flavour in FLAVOURS}


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def objects(rendered: dict[str, Path], flavour: str) -> Objects:
    """The objects of one flavour."""
    return [each for each in yaml.safe_load_all(rendered[flavour].read_text()) if each]

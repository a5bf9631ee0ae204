"""The rendered chart against Kubernetes' schemas, KEDA's types and the Prometheus operator's, checkov, promtool."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/chart"
KUBERNETES = ("1.31.0", "1.34.0", "1.37.0")
CUSTOM = {"ServiceMonitor": "prometheus", "PrometheusRule": "prometheus", "ScaledObject": "keda"}

# Reads [name of the type, object] from standard input, and tells which fields a type knows nothing of.
READ_TYPES = """
import json, sys
from cloudcoil.models.keda import v1alpha1 as keda
from cloudcoil.models.prometheus_operator import v1 as prometheus
types = {"ScaledObject": keda.ScaledObject, "ServiceMonitor": prometheus.ServiceMonitor}
types["PrometheusRule"] = prometheus.PrometheusRule

def lost(before, after, path):
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key in after:
                yield from lost(value, after[key], f"{path}.{key}")
            else:
                yield f"{path}.{key}"
    elif isinstance(before, list) and isinstance(after, list):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from lost(one, other, f"{path}[{index}]")

for each in json.load(sys.stdin):
    read = types[each["kind"]].model_validate(each).model_dump(mode="json", by_alias=True, exclude_none=True)
    for field in lost(each, read, each["kind"]):
        print("unknown field", field)
"""

# What checkov asks for and does not get, and why.
UNWANTED = {
    "CKV_K8S_43": "the image's digest is the operator's to set: image.digest",
    "CKV_K8S_15": "an image named by digest or release need not be pulled at every start",
}


@pytest.mark.parametrize("values", [None, "values-cpu.yaml", "values-gpu.yaml"])
def test_lint(helm, values):
    helm("lint", "--strict", ".", *(["--values", values] if values else []))


def distinct(rendered: dict[str, Path]) -> list[dict]:
    """The objects of all flavours, each once."""
    objects = [each for file in rendered.values() for each in yaml.safe_load_all(file.read_text()) if each]
    return list({json.dumps(each, sort_keys=True): each for each in objects}.values())


def validate(tool, version: str, objects: list[dict], directory: Path) -> str:
    file = directory / "objects.yaml"
    file.write_text(yaml.safe_dump_all(objects))
    command = [tool("kubernetes-validate"), "--strict", "--kubernetes-version", version, str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    said = ended.stdout + ended.stderr
    # A type that this version does not have is only warned of.
    return said if ended.returncode or "WARN" in said else ""


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_it(tool, rendered, version, tmp_path):
    # Images as volumes are in no schema before 1.31, and on by default from 1.35.
    objects = [each for each in distinct(rendered) if each["kind"] not in CUSTOM]
    assert validate(tool, version, objects, tmp_path) == ""


@pytest.mark.parametrize(("kind", "field"), [("Deployment", "replica"), ("Service", "port"), ("NetworkPolicy", "in")])
def test_an_unknown_field_would_be_seen(tool, rendered, kind, field, tmp_path):
    (one, *_) = [each for each in yaml.safe_load_all(rendered["cpu"].read_text()) if each and each["kind"] == kind]
    one["spec"][field] = 1
    assert field in validate(tool, KUBERNETES[-1], [one], tmp_path)


def read_types(tool, objects: list[dict]) -> str:
    python = Path(tool("kubernetes-validate")).with_name("python")
    command = [str(python), "-c", READ_TYPES]
    ended = subprocess.run(command, input=json.dumps(objects), capture_output=True, text=True, check=False)
    return ended.stdout + ended.stderr


@pytest.mark.slow
def test_keda_and_the_prometheus_operator_take_it(tool, rendered):
    custom = [each for each in distinct(rendered) if each["kind"] in CUSTOM]
    assert {each["kind"] for each in custom} == set(CUSTOM)
    for each in [one for one in custom if one["kind"] == "ScaledObject"]:
        custom.append({**each, "spec": {**each["spec"], "unheard": 1}})
        break
    # The one that was spoiled, and nothing else.
    assert read_types(tool, custom) == "unknown field ScaledObject.spec.unheard\n"


@pytest.mark.slow
def test_checkov_finds_nothing(tool, rendered):
    files = [str(rendered[flavour]) for flavour in ("cpu", "gpu", "oci", "bulk", "bucket")]
    command = [tool("checkov"), "--file", *files, "--framework", "kubernetes", "--skip-download"]
    command += ["--compact", "--quiet", "--output", "json", "--skip-check", ",".join(UNWANTED)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(ended.stdout)
    found = [
        f"{each['check_id']} {each['check_name']}: {each['resource']}" for each in report["results"]["failed_checks"]
    ]
    assert found == []
    assert report["summary"]["passed"] > 5 * 80


@pytest.mark.slow
def test_hadolint_and_checkov_find_nothing_in_the_dockerfile(tool):
    dockerfile = str(ROOT / "deploy/Dockerfile")
    hadolint = subprocess.run([tool("hadolint"), dockerfile], capture_output=True, text=True, check=False)
    assert hadolint.stdout == ""
    command = [tool("checkov"), "--file", dockerfile, "--framework", "dockerfile", "--skip-download", "--quiet"]
    checkov = subprocess.run([*command, "--compact"], capture_output=True, text=True, check=False)
    assert checkov.returncode == 0, checkov.stdout


def rules_of(rendered: dict[str, Path], name: str) -> dict:
    (rule,) = [
        each for each in yaml.safe_load_all(rendered[name].read_text()) if each and each["kind"] == "PrometheusRule"
    ]
    return rule["spec"]


SERIES = '{namespace="generators",service="pictures-ganery",model="fashion"'
HEALTHY = {
    f'ganery_bundle_up{SERIES},pod="a"}}': "1x60",
    f'ganery_bundle_provider{SERIES},pod="a",provider="CPUExecutionProvider"}}': "1x60",
    f'ganery_bundle_golden{SERIES},pod="a",result="matches"}}': "1x60",
    f'ganery_bundle_determinism{SERIES},pod="a",determinism="exact; batch=free"}}': "1x60",
    f'ganery_queue_wait_seconds{SERIES},pod="a"}}': "0.1x60",
    f'ganery_requests_total{SERIES},pod="a",route="/generate",status="200"}}': "0+6000x60",
    f'ganery_requests_total{SERIES},pod="a",route="/generate",status="500"}}': "0x60",
}
# What goes wrong, and the alert that says so.
WRONG = {
    "GaneryServesNothing": {f'ganery_bundle_up{SERIES},pod="a"}}': "0x60"},
    "GaneryBundleRefused": {f'ganery_bundle_up{SERIES},pod="b"}}': "0x60"},
    "GaneryFails": {f'ganery_requests_total{SERIES},pod="a",route="/generate",status="500"}}': "0+100x60"},
    "GaneryOverloaded": {f'ganery_requests_total{SERIES},pod="a",route="/generate",status="429"}}': "0+600x60"},
    "GaneryWaitsLong": {f'ganery_queue_wait_seconds{SERIES},pod="a"}}': "9x60"},
    "GaneryNonFiniteOutput": {f'ganery_problems_total{SERIES},pod="a",kind="non-finite-output"}}': "0+1x60"},
    "GaneryGoldenDiffers": {f'ganery_bundle_golden{SERIES},pod="b",result="differs"}}': "1x60"},
    "GaneryReplicasDiffer": {f'ganery_bundle_provider{SERIES},pod="b",provider="CUDAExecutionProvider"}}': "1x60"},
    "GaneryUnproven": {f'ganery_bundle_determinism{SERIES},pod="b",determinism="unproven; batch=1"}}': "1x60"},
}


def test_each_alert_comes_when_it_should_and_only_then(tool, rendered, tmp_path):
    rules = rules_of(rendered, "cpu")
    alerts = [rule["alert"] for group in rules["groups"] for rule in group["rules"]]
    assert sorted(alerts) == sorted(WRONG)
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    tests = []
    for name, series in {"": {}, **WRONG}.items():
        expression = 'count by (alertname) (ALERTS{alertstate="firing"})'
        # With its only bundle refused a replica is also one that refuses a bundle.
        fired = {name, "GaneryBundleRefused"} if name == "GaneryServesNothing" else {name} - {""}
        tests.append(
            {
                "name": name or "all is well",
                "interval": "1m",
                "input_series": [{"series": s, "values": v} for s, v in {**HEALTHY, **series}.items()],
                "promql_expr_test": [
                    {
                        "expr": expression,
                        "eval_time": "50m",
                        "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(fired)],
                    }
                ],
            }
        )
    cases = tmp_path / "cases.yaml"
    cases.write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}))
    ended = subprocess.run([tool("promtool"), "test", "rules", str(cases)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr

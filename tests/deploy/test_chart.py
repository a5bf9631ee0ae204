"""What the chart renders, and what schemas do not see in it."""

import copy
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from semantics import CHECKS, containers, of_kind
from server_process import serving

from deploy.requirements import requirements
from service import __version__
from service.formats import FORMATS
from service.routes import ROUTES
from service.settings import Settings

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/chart"
SET_BY_THE_CHART = {"MODELS_DIR", "DRAIN_SECONDS", "API_KEYS_FILE"}
ADDED_BY_PROMETHEUS = {"namespace", "service", "pod", "le"}


@pytest.mark.parametrize("check", CHECKS)
def test_nothing_is_wrong(objects, check):
    assert list(CHECKS[check](objects)) == []


def pod(objects):
    (deployment,) = of_kind(objects, "Deployment")
    return deployment["spec"]["template"]["spec"]


def container(objects):
    return pod(objects)["containers"][0]


def the(objects, kind):
    return of_kind(objects, kind)[0]["spec"]


def resource(objects, kind, name, amount):
    container(objects)["resources"][kind][name] = amount


# What somebody may break, and the check that must see it.
MUTATIONS: list[tuple[str, Callable[[Any], Any]]] = [
    ("selectors_match_labels", lambda o: the(o, "Service")["selector"].update({"app.kubernetes.io/name": "other"})),
    ("selectors_match_labels", lambda o: the(o, "Deployment")["template"]["metadata"]["labels"].clear()),
    ("selectors_match_labels", lambda o: the(o, "NetworkPolicy")["podSelector"]["matchLabels"].update(x="y")),
    ("selectors_match_labels", lambda o: the(o, "ServiceMonitor")["selector"]["matchLabels"].update(x="y")),
    ("selectors_match_labels", lambda o: the(o, "Service")["selector"].pop("app.kubernetes.io/name")),
    ("ports_resolve", lambda o: container(o)["readinessProbe"]["httpGet"].update(port="htt_p")),
    ("ports_resolve", lambda o: the(o, "Service")["ports"][0].update(targetPort="web")),
    ("ports_resolve", lambda o: the(o, "ServiceMonitor")["endpoints"][0].update(port="metrics")),
    ("ports_resolve", lambda o: the(o, "NetworkPolicy")["ingress"][0]["ports"][0].update(port="web")),
    ("resources_add_up", lambda o: resource(o, "limits", "memory", "4Gib")),
    ("resources_add_up", lambda o: resource(o, "requests", "memory", "64Gi")),
    ("resources_add_up", lambda o: resource(o, "limits", "nvidia.com/gpu", 2)),
    ("resources_add_up", lambda o: resource(o, "requests", "nvidia.com/gpu", "500m")),
    ("a_rollout_can_begin", lambda o: the(o, "Deployment")["strategy"]["rollingUpdate"].update(maxUnavailable=0)),
    ("the_grace_period_covers_the_drain", lambda o: pod(o).update(terminationGracePeriodSeconds=30)),
    ("one_autoscaler_at_most", lambda o: o.append(the_other_autoscaler(o))),
    ("one_autoscaler_at_most", lambda o: the(o, "Deployment").update(replicas=2)),
    ("one_autoscaler_at_most", lambda o: the(o, "ScaledObject")["scaleTargetRef"].update(name="other")),
    ("a_budget_leaves_room", lambda o: the(o, "ScaledObject").update(minReplicaCount=2)),
    ("references_resolve", lambda o: pod(o).update(serviceAccountName="other")),
    ("references_resolve", lambda o: container(o)["envFrom"][0]["configMapRef"].update(name="other")),
    ("references_resolve", lambda o: pod(o)["volumes"].clear()),
    ("pods_are_restricted", lambda o: container(o)["securityContext"].update(privileged=True)),
    ("pods_are_restricted", lambda o: pod(o).update(enableServiceLinks=True)),
    ("pods_are_restricted", lambda o: pod(o)["securityContext"].update(runAsUser=0)),
    ("pods_are_restricted", lambda o: pod(o)["volumes"].append({"name": "host", "hostPath": {"path": "/"}})),
    ("pods_are_restricted", lambda o: worker(o).update(automountServiceAccountToken=True)),
    ("selectors_match_labels", lambda o: the(o, "Job")["template"]["metadata"].update(labels=served_labels(o))),
    ("resources_add_up", lambda o: worker(o)["containers"][0]["resources"]["limits"].update({"nvidia.com/gpu": 2})),
    ("references_resolve", lambda o: worker(o)["containers"][0]["volumeMounts"].clear()),
    ("workers_share_the_shards", lambda o: the(o, "Job").pop("completionMode")),
    ("workers_share_the_shards", lambda o: the(o, "Job").update(completions=5)),
    ("workers_share_the_shards", lambda o: the(o, "Job").update(parallelism=5)),
    ("workers_share_the_shards", lambda o: the(o, "Job").pop("podReplacementPolicy")),
    ("workers_share_the_shards", lambda o: the(o, "Job")["podFailurePolicy"]["rules"].pop(0)),
    ("workers_share_the_shards", lambda o: worker(o)["containers"][0].update(name="other")),
    ("workers_share_the_shards", lambda o: worker(o).update(restartPolicy="OnFailure")),
    ("workers_reach_their_store", lambda o: worker_arguments(o).append(f"--out={worker_arguments(o).pop()[9:]}")),
    ("workers_reach_their_store", lambda o: worker_policy(o)["egress"].pop()),
    ("workers_reach_their_store", lambda o: worker_policy(o).update(ingress=[{}])),
]


def worker(objects):
    return the(objects, "Job")["template"]["spec"]


def worker_arguments(objects):
    return worker(objects)["containers"][0]["args"]


def worker_policy(objects):
    (policy,) = [each for each in of_kind(objects, "NetworkPolicy") if each["metadata"]["name"].endswith("-bulk")]
    return policy["spec"]


def served_labels(objects):
    return the(objects, "Deployment")["template"]["metadata"]["labels"]


def the_other_autoscaler(objects):
    other = copy.deepcopy(of_kind(objects, "ScaledObject")[0])
    return {**other, "kind": "HorizontalPodAutoscaler"}


@pytest.mark.parametrize("number", range(len(MUTATIONS)), ids=lambda number: f"{number}-{MUTATIONS[number][0]}")
def test_what_is_broken_is_seen(rendered, number):
    check, break_it = MUTATIONS[number]
    objects = [each for each in yaml.safe_load_all(rendered["bucket"].read_text()) if each]
    assert list(CHECKS[check](objects)) == []
    break_it(objects)
    assert list(CHECKS[check](objects))


REFUSED = {
    "a rollout that cannot begin": ["rollout.maxSurge=0", "rollout.maxUnavailable=0"],
    "two autoscalers": ["autoscaler.kind=both"],
    "no replica to start from": ["autoscaler.minReplicas=0"],
    "half a GPU": ["gpu.count=0.5"],
    "two GPUs for a process that uses one": ["gpu.count=2"],
    "a value that is not one": ["replica=3"],
    "a setting that is not one": ["settings.QUEUE_LENGTH=5"],
    "a provider that there is not": ["settings.PROVIDER=gpu"],
    "a switch that is neither on nor off": ["settings.METRICS_NEED_KEY=please"],
    "words for a number": ["settings.QUEUE_ROWS=many"],
    "a queue for nothing": ["settings.QUEUE_ROWS=0"],
    "more processes than there may be": ["settings.PROCESSES=1025"],
    "half a picture": ["settings.MAX_UPLOADS=0.5"],
    "a unit where there is none": ["settings.DEADLINE_SECONDS=30s"],
    "a setting that the chart makes itself": ["settings.DRAIN_SECONDS=5"],
    "a memory that is none": ["resources.limits.memory=4Gib"],
    "a claim without a name": ["bundles.source=claim"],
    "bundles by a tag, which may be other bundles tomorrow": ["bundles.source=oci", "bundles.oci.reference=a/b:1"],
    "bundles from nowhere": ["bundles.source=oci"],
    "a digest that is none": ["image.digest=sha256:abc"],
    "shards for nowhere": ["bulk.enabled=true"],
    "shards for two places": ["bulk.enabled=true", "bulk.out.claim=a", "bulk.out.url=s3://a/b"],
    "shards for outside the claim": ["bulk.enabled=true", "bulk.out.claim=a", "bulk.out.path=../b"],
    "a bucket that cannot be reached": ["bulk.enabled=true", "bulk.out.url=s3://a/b"],
    "a way out to everywhere": ["bulk.egress[0].ports[0].port=443"],
    "another way out to everywhere": ["networkPolicy.egress[0].ports[0].port=443"],
    "a setting in disguise": ["environment.SERVICE_PROVIDER=cpu"],
    "a key for Prometheus that is written down": ["monitoring.serviceMonitor.authorization.credentials=key"],
    "no worker": ["bulk.enabled=true", "bulk.out.claim=a", "bulk.workers=0"],
    "a seed whose last digits would be lost": ["bulk.seed=9007199254740993"],
    "a truncation above 1": ["bulk.truncation=1.5"],
    "a policy that lets everybody in": ["networkPolicy.clientNamespaceLabels=null"],
}


@pytest.mark.parametrize("why", REFUSED)
def test_the_schema_refuses(template, why):
    arguments = [argument for value in REFUSED[why] for argument in ("--set", value)]
    assert template(*arguments, check=False).returncode != 0


def test_one_set_of_settings(objects, monkeypatch, tmp_path):
    """Every variable is one that the service or OpenTelemetry knows, ours with a value that it takes."""
    (settings,) = [each["data"] for each in of_kind(objects, "ConfigMap") if "SERVICE_MODELS_DIR" in each["data"]]
    ours = {name for name in settings if not name.startswith("OTEL_")}
    assert {name.removeprefix("SERVICE_").lower() for name in ours} <= set(Settings.model_fields)
    for each in containers(objects):
        assert "env" not in each
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert Settings().drain_seconds == float(settings["SERVICE_DRAIN_SECONDS"])


BOUNDS = ("minimum", "maximum", "exclusiveMinimum")


def as_a_value(setting: dict[str, Any]) -> dict[str, Any]:
    """The schema of a setting as a value of the chart, which may be quoted; as variables do, "" leaves it unset.

    Of numbers in quotes it tells whether they are some, and not 0 where that is too little.
    """
    setting = setting.get("anyOf", [setting])[0]
    bounds = {name: setting[name] for name in BOUNDS if name in setting}
    if choices := setting.get("enum", [setting["const"]] if "const" in setting else []):
        return {"enum": [*choices, ""]}
    if setting["type"] == "boolean":
        return {"enum": [True, False, "true", "false", ""]}
    if setting["type"] == "integer":
        digits = "0|[1-9][0-9]*" if bounds["minimum"] == 0 else "[1-9][0-9]*"
        return {"type": ["integer", "string"], **bounds, "pattern": f"^({digits})?$"}
    if setting["type"] == "number":
        return {"type": ["number", "string"], **bounds, "pattern": r"^([0-9]+(\.[0-9]+)?)?$"}
    return {"type": "string"}


def test_the_schema_knows_the_settings_and_what_they_take():
    settings = json.loads((CHART / "values.schema.json").read_text())["properties"]["settings"]
    assert settings["additionalProperties"] is False
    assert settings["properties"] == {
        name.upper(): as_a_value(setting)
        for name, setting in Settings.model_json_schema()["properties"].items()
        if name.upper() not in SET_BY_THE_CHART
    }


def test_the_schema_takes_every_default(template):
    """As a value and in quotes."""
    defaults = Settings().model_dump(mode="json", exclude_none=True, exclude={"cors_origins"})
    values = {name.upper(): value for name, value in defaults.items() if name.upper() not in SET_BY_THE_CHART}
    quoted = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    for settings in (values, quoted, dict.fromkeys(values, "")):
        template("--set-json", f"settings={json.dumps(settings)}")


def test_settings_keep_their_fractions_and_their_digits(template):
    values = 'settings={"SEND_SECONDS": 2.5, "MAX_PIXELS": 16777216, "LOG_FORMAT": "json"}'
    objects = [each for each in yaml.safe_load_all(template("--set-json", values).stdout) if each]
    (settings,) = [each["data"] for each in of_kind(objects, "ConfigMap") if "SERVICE_MODELS_DIR" in each["data"]]
    assert settings["SERVICE_SEND_SECONDS"] == "2.5"
    assert settings["SERVICE_MAX_PIXELS"] == "16777216"
    assert settings["SERVICE_LOG_FORMAT"] == "json"


def test_the_schema_knows_the_picture_formats():
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert schema["properties"]["bulk"]["properties"]["picture"]["enum"] == list(FORMATS)


def test_bundles_are_mounted_where_the_service_looks(objects, flavour):
    mounts = {mount["name"]: mount for mount in container(objects)["volumeMounts"]}
    if flavour not in {"claim", "oci"}:
        assert "bundles" not in mounts
        return
    (settings,) = [each["data"] for each in of_kind(objects, "ConfigMap") if "SERVICE_MODELS_DIR" in each["data"]]
    assert mounts["bundles"] == {"name": "bundles", "mountPath": settings["SERVICE_MODELS_DIR"], "readOnly": True}


def test_probes_ask_for_what_there_is(objects):
    paths = {route.path for route in ROUTES}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container(objects)[probe]["httpGet"]["path"] in paths
    assert container(objects)["livenessProbe"]["httpGet"]["path"] == "/livez"
    slow, quick = (container(objects)[probe] for probe in ("livenessProbe", "readinessProbe"))
    assert slow["periodSeconds"] * slow["failureThreshold"] > 10 * quick["periodSeconds"] * quick["failureThreshold"]


def test_the_network_is_closed_but_for_callers_and_names(objects):
    policy, *_ = [p["spec"] for p in of_kind(objects, "NetworkPolicy") if not p["metadata"]["name"].endswith("-bulk")]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    names, *listed = policy["egress"]
    assert {port["port"] for port in names["ports"]} == {53}
    (settings,) = [each["data"] for each in of_kind(objects, "ConfigMap") if "SERVICE_MODELS_DIR" in each["data"]]
    ports = [port["port"] for rule in listed for port in rule["ports"]]
    assert ports == ([443] if "SERVICE_TRACING" in settings else [])
    assert all(peer for rule in policy["ingress"] + policy["egress"] for peer in rule.get("from", rule.get("to")))


def asking_pod(objects):
    (found,) = [pod["spec"] for pod in of_kind(objects, "Pod")]
    return found


def test_the_pod_of_helm_test_may_be_pulled_and_runs_where_the_others_do(template):
    values = "image.pullSecrets[0].name=registry,nodeSelector.pool=pictures,tolerations[0].key=pictures"
    objects = [each for each in yaml.safe_load_all(template("--set", values).stdout) if each]
    for member in ("imagePullSecrets", "nodeSelector", "tolerations"):
        assert asking_pod(objects)[member] == pod(objects)[member]


@pytest.fixture
def guarded(tmp_path) -> Iterator[tuple[str, Path]]:
    """The address of a server that wants a key, and its file of keys."""
    keys = tmp_path / "keys"
    keys.write_text("# of the shop\n\n  sixteen-letters-and-more\nanother-that-is-as-good\n")
    with serving(tmp_path, ROOT / "models", SERVICE_API_KEYS_FILE=str(keys)) as server:
        server.wait_for('"ready"')
        yield f"127.0.0.1:{server.port}", keys


def test_with_keys_the_commands_that_the_chart_gives_bring_one(helm, rendered, guarded, tmp_path):
    address, keys = guarded
    objects = [each for each in yaml.safe_load_all(rendered["keys"].read_text()) if each]
    (script,) = asking_pod(objects)["containers"][0]["args"]
    script = script.replace("pictures-ganery:80", address).replace("/keys/keys", str(keys))
    asked = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert asked.stdout == "the same picture twice\n"

    notes = helm("install", "pictures", ".", "--dry-run=client", "--set", "apiKeysSecret=keys").stdout.split("NOTES:")[
        1
    ]
    commands = re.search(r"^ *KEY=.*?picture\.png$", notes, re.MULTILINE | re.DOTALL)
    assert commands is not None
    secret = f"base64 {shlex.quote(str(keys))}"
    typed = re.sub(r"kubectl [^|]*", f"{secret} ", commands[0]).replace("127.0.0.1:3000", address)
    subprocess.run(typed, shell=True, check=True, cwd=tmp_path)
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_the_gpu_flavour_takes_what_a_gpu_needs(rendered):
    objects = [each for each in yaml.safe_load_all(rendered["gpu-nodes"].read_text()) if each]
    assert container(objects)["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert pod(objects)["nodeSelector"] == {"gpu": "one", "zone": "here"}
    assert pod(objects)["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    (settings,) = [each["data"] for each in of_kind(objects, "ConfigMap") if "SERVICE_MODELS_DIR" in each["data"]]
    assert settings["SERVICE_PROVIDER"] == "cuda"


def generate(arguments, number):
    """Run a worker's command as Kubernetes would, but for its image."""
    filled = [argument.replace("$(JOB_COMPLETION_INDEX)", str(number)) for argument in arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SERVICE_MODELS_DIR": str(ROOT / "models")}
    command = [sys.executable, "-m", "service", *filled]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=120)


@pytest.fixture
def worker_command(template):
    """The arguments of the Job's container, for values."""

    def of(*values):
        rendered = template("--set", "bulk.enabled=true,bulk.workers=2,bulk.shardSize=5", *values).stdout
        return worker_arguments([each for each in yaml.safe_load_all(rendered) if each])

    return of


def test_the_workers_of_a_job_write_the_shards_together(worker_command, tmp_path):
    arguments = worker_command(
        "--set", "bulk.count=15,bulk.out.claim=shards,bulk.out.path=a/b", "--set-string", "bulk.seed=7"
    )
    assert "--out=/out/a/b" in arguments
    out = tmp_path / "out"
    for number in (1, 0):
        generate([each.replace("--out=/out/a/b", f"--out={out}") for each in arguments], number)
    manifest = json.loads((out / "manifest.json").read_text())
    assert [shard["samples"] for shard in manifest["shards"]] == [5, 5, 5]
    assert (manifest["seeds"], manifest["shard_size"]) == ([[7, 22]], 5)


def test_a_seed_keeps_its_digits_and_a_class_its_letters(worker_command):
    values = ["--set-string", "bulk.seed=18446744073709551615,bulk.classes=T-shirt/top: new #1,bulk.truncation=.5"]
    arguments = worker_command("--set", "bulk.out.claim=shards", *values)
    assert {"--seed=18446744073709551615", "--classes=T-shirt/top: new #1", "--truncation=.5"} <= set(arguments)


def test_another_plan_is_another_job(template):
    """A Job cannot be changed."""
    values = ["--set", "bulk.enabled=true,bulk.out.claim=shards", "--set-string"]
    names = {
        of_kind([each for each in yaml.safe_load_all(template(*values, value).stdout) if each], "Job")[0]["metadata"][
            "name"
        ]
        for value in ("bulk.seed=0", "bulk.seed=1", "image.tag=2")
    }
    assert len(names) == 3


def test_a_job_may_use_an_account_that_the_cloud_knows(template):
    values = ["--set", "bulk.enabled=true,bulk.out.claim=shards,bulk.serviceAccount=writer"]
    spec = worker([each for each in yaml.safe_load_all(template(*values).stdout) if each])
    assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == ("writer", False)


def test_replicas_follow_two_signals(rendered):
    """How long pictures wait, and how busy a replica is; off where values say so."""
    signals = {
        flavour: [
            metric.get("pods", metric.get("resource", {})).get("target", {}) or metric["metadata"]["threshold"]
            for scaler in [each for each in yaml.safe_load_all(rendered[flavour].read_text()) if each]
            if scaler["kind"] in {"HorizontalPodAutoscaler", "ScaledObject"}
            for metric in scaler["spec"].get("metrics", scaler["spec"].get("triggers"))
        ]
        for flavour in ("cpu", "keda", "gpu")
    }
    assert signals == {
        "cpu": [
            {"type": "AverageValue", "averageValue": "0.5"},
            {"type": "Utilization", "averageUtilization": 70},
        ],
        "keda": ["0.5", "1.4"],
        "gpu": ["0.5", "0.7"],
    }


def expressions() -> dict[str, list[str]]:
    """What the alerts, the dashboard and the autoscalers ask Prometheus for."""
    alerts = yaml.safe_load((CHART / "alerts/ganery.yaml").read_text())
    dashboard = json.loads((CHART / "dashboards/ganery.json").read_text())
    scaler = (CHART / "templates/autoscaler.yaml").read_text()
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    variables = [each["definition"] for each in dashboard["templating"]["list"] if "definition" in each]
    return {
        **{rule["alert"]: [rule["expr"]] for group in alerts["groups"] for rule in group["rules"]},
        **{panel["title"]: [target["expr"] for target in panel["targets"]] for panel in dashboard["panels"]},
        "variables": variables,
        "KEDA": re.findall(r"query: (.*)", scaler),
        "HPA": [values["autoscaler"]["hpa"]["metric"]],
    }


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> dict[str, set[str]]:
    """The labels of each series of a server that has answered, failed and refused."""
    with serving(tmp_path_factory.mktemp("metrics"), ROOT / "models") as server:
        server.wait_for('"ready"')
        for ask in ({"seed": 1}, {"seed": "x"}):
            server.client.post("/generate", json=ask)
        text = server.client.get("/metrics").text
    series: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            series.setdefault(sample.name, set()).update(sample.labels)
    return series


@pytest.mark.parametrize("name", expressions())
def test_metrics_and_labels_are_exported(exported, name):
    found = 0
    for expression in expressions()[name]:
        for metric, labels in re.findall(r"(ganery_\w+)(?:\{([^}]*)\})?", expression):
            found += 1
            assert metric in exported
            named = set(re.findall(r"(\w+)=~?", labels))
            assert named <= exported[metric] | ADDED_BY_PROMETHEUS
    assert found


def test_each_alert_has_a_line_in_the_operations_page():
    alerts = yaml.safe_load((CHART / "alerts/ganery.yaml").read_text())
    page = (ROOT / "docs/operations.md").read_text()
    for group in alerts["groups"]:
        for rule in group["rules"]:
            assert f"| `{rule['alert']}` |" in page


def test_the_chart_has_the_version_of_the_service():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


@pytest.mark.parametrize("extras", [["cpu"], ["gpu"], ["cpu", "s3", "tracing"]])
def test_the_image_installs_what_pyproject_says(extras):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [one for extra in extras for one in project["optional-dependencies"][extra]]
    assert requirements(*extras, pyproject=ROOT / "pyproject.toml") == project["dependencies"] + wanted


def test_an_unknown_extra_is_told():
    with pytest.raises(SystemExit, match="no extra s4; there are cpu, gpu, s3"):
        requirements("cpu", "s4", pyproject=ROOT / "pyproject.toml")

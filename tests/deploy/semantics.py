"""What Kubernetes' schemas miss and a cluster would refuse, or worse, accept: a check yields what is wrong."""

import re
from collections.abc import Callable, Iterator
from typing import Any

Object = dict[str, Any]
Objects = list[Object]
Problems = Iterator[str]

UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
PLAIN_RESOURCES = {"cpu", "memory", "ephemeral-storage"}


def of_kind(objects: Objects, kind: str) -> Objects:
    return [each for each in objects if each["kind"] == kind]


def pods(objects: Objects) -> Iterator[tuple[str, Object]]:
    """Each pod's name and what it is made from: `metadata` and `spec`."""
    for each in objects:
        if each["kind"] in {"Deployment", "Job"}:
            yield each["metadata"]["name"], each["spec"]["template"]
        elif each["kind"] == "Pod":
            yield each["metadata"]["name"], each


def containers(objects: Objects) -> Iterator[Object]:
    for _, pod in pods(objects):
        yield from pod["spec"]["containers"]


def quantity(written: Any) -> float:
    """A quantity of Kubernetes as a number.

    Raises:
        ValueError: if it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(m|k|M|G|T|Ki|Mi|Gi|Ti)?", str(written))
    if found is None:
        raise ValueError(f"{written!r} is no quantity")
    return float(found[1]) * UNITS[found[2] or ""]


def matches(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


def selectors_match_labels(objects: Objects) -> Problems:
    served = [deployment["spec"]["template"]["metadata"]["labels"] for deployment in of_kind(objects, "Deployment")]
    jobs = [pod["metadata"]["labels"] for _, pod in pods(of_kind(objects, "Job"))]
    others = jobs + [pod["metadata"]["labels"] for _, pod in pods(of_kind(objects, "Pod"))]
    selectors = {
        f"{each['kind']} {each['metadata']['name']}": each["spec"][where].get("matchLabels", each["spec"][where])
        for kind, where in {"Deployment": "selector", "Service": "selector", "PodDisruptionBudget": "selector"}.items()
        for each in of_kind(objects, kind)
    }
    for deployment in of_kind(objects, "Deployment"):
        for spread in deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]:
            selectors[f"spread over {spread['topologyKey']}"] = spread["labelSelector"]["matchLabels"]
    for who, selector in selectors.items():
        if not any(matches(selector, labels) for labels in served):
            yield f"{who} selects no pod that serves"
        if any(matches(selector, labels) for labels in others):
            yield f"{who} selects a pod that does not serve"
    policies = of_kind(objects, "NetworkPolicy")
    for labels in served + jobs if policies else ():
        if (count := sum(matches(policy["spec"]["podSelector"]["matchLabels"], labels) for policy in policies)) != 1:
            yield f"{count} NetworkPolicies for the pods {labels}; together they would allow what each of them does"
    for monitor in of_kind(objects, "ServiceMonitor"):
        selector = monitor["spec"]["selector"]["matchLabels"]
        if not any(matches(selector, service["metadata"]["labels"]) for service in of_kind(objects, "Service")):
            yield f"ServiceMonitor {monitor['metadata']['name']} selects no Service"


def ports_resolve(objects: Objects) -> Problems:
    named = {port["name"] for container in containers(objects) for port in container.get("ports", ())}
    numbers = {port["containerPort"] for container in containers(objects) for port in container.get("ports", ())}
    known = named | numbers
    used = {
        **{
            f"{probe} of {container['name']}": container[probe]["httpGet"]["port"]
            for container in containers(objects)
            for probe in ("startupProbe", "readinessProbe", "livenessProbe")
            if probe in container
        },
        **{
            f"Service {service['metadata']['name']}": port["targetPort"]
            for service in of_kind(objects, "Service")
            for port in service["spec"]["ports"]
        },
        **{
            f"NetworkPolicy {policy['metadata']['name']}": port["port"]
            for policy in of_kind(objects, "NetworkPolicy")
            for rule in policy["spec"].get("ingress", ())
            for port in rule["ports"]
        },
    }
    for who, port in used.items():
        if port not in known:
            yield f"{who} uses port {port!r}, which no container has"
    service_ports = {port["name"] for service in of_kind(objects, "Service") for port in service["spec"]["ports"]}
    for monitor in of_kind(objects, "ServiceMonitor"):
        for endpoint in monitor["spec"]["endpoints"]:
            if endpoint["port"] not in service_ports:
                yield f"ServiceMonitor scrapes port {endpoint['port']!r}, which no Service has"


def resources_add_up(objects: Objects) -> Problems:
    for container in containers(objects):
        requests, limits = (container["resources"][kind] for kind in ("requests", "limits"))
        for resource in {**requests, **limits}:
            try:
                asked, most = quantity(requests.get(resource, 0)), quantity(limits.get(resource, 0))
            except ValueError as error:
                yield f"{resource} of {container['name']}: {error}"
                continue
            if asked > most:
                yield f"{resource} of {container['name']}: the request is above the limit"
            if resource not in PLAIN_RESOURCES and (asked != most or not most.is_integer()):
                yield f"{resource} of {container['name']}: request and limit must be the same whole number"


def a_rollout_can_begin(objects: Objects) -> Problems:
    for deployment in of_kind(objects, "Deployment"):
        rolling = deployment["spec"]["strategy"]["rollingUpdate"]
        surge, unavailable = (str(rolling[name]).rstrip("%") for name in ("maxSurge", "maxUnavailable"))
        if int(surge) == int(unavailable) == 0:
            yield "maxSurge and maxUnavailable are both zero"
        devices = {
            resource for container in containers([deployment]) for resource in container["resources"]["limits"]
        } - PLAIN_RESOURCES
        if devices and int(unavailable) == 0:
            yield f"without a spare {', '.join(devices)} a rollout waits for ever: let one be unavailable"


def the_grace_period_covers_the_drain(objects: Objects) -> Problems:
    (settings,) = [each["data"] for each in of_kind(objects, "ConfigMap") if "SERVICE_MODELS_DIR" in each["data"]]
    for deployment in of_kind(objects, "Deployment"):
        spec = deployment["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        arguments = container["args"]
        needed = (
            container["lifecycle"]["preStop"]["sleep"]["seconds"]
            + float(settings["SERVICE_DRAIN_SECONDS"])
            + int(arguments[arguments.index("--grace-seconds") + 1])
        )
        if spec["terminationGracePeriodSeconds"] <= needed:
            yield f"stopping takes up to {needed} s, and is cut after {spec['terminationGracePeriodSeconds']} s"


def one_autoscaler_at_most(objects: Objects) -> Problems:
    scalers = of_kind(objects, "HorizontalPodAutoscaler") + of_kind(objects, "ScaledObject")
    deployments = {deployment["metadata"]["name"]: deployment for deployment in of_kind(objects, "Deployment")}
    if len(scalers) > 1:
        yield "two autoscalers set the same number of replicas"
    for scaler in scalers:
        spec = scaler["spec"]
        target = deployments.get(spec["scaleTargetRef"]["name"])
        if target is None:
            yield f"{scaler['kind']} scales {spec['scaleTargetRef']['name']!r}, which is no Deployment here"
        elif "replicas" in target["spec"]:
            yield "a Deployment that is scaled must not name its replicas: each upgrade would set them back"
        fewest, most = (
            spec.get(f"{which}Replicas", spec.get(f"{which}ReplicaCount")) for which in ("min", "max")
        )  # as an HPA says it, and as KEDA does
        if not 1 <= fewest <= most:
            yield f"from {fewest} to {most} replicas"


def a_budget_leaves_room(objects: Objects) -> Problems:
    scalers = of_kind(objects, "HorizontalPodAutoscaler") + of_kind(objects, "ScaledObject")
    for deployment in of_kind(objects, "Deployment"):
        spec = scalers[0]["spec"] if scalers else {"minReplicas": deployment["spec"]["replicas"]}
        fewest = spec.get("minReplicas", spec.get("minReplicaCount"))
        budgets = of_kind(objects, "PodDisruptionBudget")
        if fewest < 2 and budgets:
            yield "a budget for one replica would keep its node from being drained"
        if fewest >= 2 and not budgets:
            yield "nothing keeps all replicas from being evicted at once"
        for budget in budgets:
            if str(budget["spec"].get("maxUnavailable", 0)) in {"0", "0%"}:
                yield "the budget lets no pod be evicted"


def references_resolve(objects: Objects) -> Problems:
    names = {(each["kind"], each["metadata"]["name"]) for each in objects}
    for who, pod in pods(objects):
        spec = pod["spec"]
        account = spec.get("serviceAccountName")
        if account and ("ServiceAccount", account) not in names:
            yield f"{who}: no ServiceAccount {account!r}"
        volumes = {volume["name"] for volume in spec.get("volumes", ())}
        mounted = {mount["name"] for container in spec["containers"] for mount in container.get("volumeMounts", ())}
        if volumes != mounted:
            yield f"{who}: volumes {sorted(volumes)}, mounted {sorted(mounted)}"
        for container in spec["containers"]:
            for source in container.get("envFrom", ()):
                # Secrets are never the chart's own.
                if "configMapRef" in source and ("ConfigMap", source["configMapRef"]["name"]) not in names:
                    yield f"{who}: no ConfigMap {source['configMapRef']['name']!r}"


def pods_are_restricted(objects: Objects) -> Problems:
    """Pod Security's profile `restricted`, and what we add to it."""
    for who, pod in pods(objects):
        spec = pod["spec"]
        for setting, expected in {"automountServiceAccountToken": False, "enableServiceLinks": False}.items():
            if spec.get(setting) is not expected:
                yield f"{who}: {setting} is {spec.get(setting)}"
        if any(spec.get(shared) for shared in ("hostNetwork", "hostPID", "hostIPC")):
            yield f"{who}: shares the node's namespaces"
        security = spec["securityContext"]
        if not security.get("runAsNonRoot") or not security.get("runAsUser", 0) > 10000:
            yield f"{who}: may be root, or somebody on the node"
        if security["seccompProfile"]["type"] != "RuntimeDefault":
            yield f"{who}: no seccomp profile"
        for volume in spec.get("volumes", ()):
            if unknown := volume.keys() - {"name", "emptyDir", "persistentVolumeClaim", "image", "secret"}:
                yield f"{who}: a volume of kind {unknown}"
        for container in spec["containers"]:
            own = container["securityContext"]
            if own.get("privileged") or own.get("allowPrivilegeEscalation") is not False:
                yield f"{who}: may gain privileges"
            if own.get("capabilities") != {"drop": ["ALL"]}:
                yield f"{who}: has capabilities"
            if own.get("readOnlyRootFilesystem") is not True:
                yield f"{who}: may write into its image"


def workers_share_the_shards(objects: Objects) -> Problems:
    """Each worker of an Indexed Job has a number of its own, none is missing, and an eviction is no failure."""
    for job in of_kind(objects, "Job"):
        spec, pod = job["spec"], job["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        if spec.get("completionMode") != "Indexed":
            yield "without completionMode Indexed no worker knows its number"
        if f"--shard=$(JOB_COMPLETION_INDEX)/{spec['completions']}" not in container["args"]:
            yield f"the arguments {container['args']} do not share the shards among {spec['completions']} workers"
        if not 1 <= spec["parallelism"] <= spec["completions"]:
            yield f"{spec['parallelism']} of {spec['completions']} workers at a time"
        if pod["restartPolicy"] != "Never":
            yield "a policy for failed pods needs restartPolicy Never"
        if spec.get("podReplacementPolicy") != "Failed":
            yield "two workers of one number may write at the same time"
        rules = spec["podFailurePolicy"]["rules"]
        ignored = [rule["onPodConditions"] for rule in rules if rule["action"] == "Ignore"]
        if [{"type": "DisruptionTarget", "status": "True"}] not in ignored:
            yield "evictions count as failures"
        for rule in rules:
            if rule.get("onExitCodes", {}).get("containerName", container["name"]) != container["name"]:
                yield f"exit codes of {rule['onExitCodes']['containerName']!r}, which is no container"


def workers_reach_their_store(objects: Objects) -> Problems:
    """A volume that lasts, or a bucket: to that, and only for that, a way out is open."""
    for job in of_kind(objects, "Job"):
        (container,) = job["spec"]["template"]["spec"]["containers"]
        (out,) = [argument.removeprefix("--out=") for argument in container["args"] if argument.startswith("--out=")]
        places = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")} - {"/tmp"}
        if "://" not in out and not any(out == place or out.startswith(f"{place}/") for place in places):
            yield f"nothing that lasts is mounted at {out}"
        labels = job["spec"]["template"]["metadata"]["labels"]
        for policy in of_kind(objects, "NetworkPolicy"):
            if not matches(policy["spec"]["podSelector"]["matchLabels"], labels):
                continue
            ways_out = [rule for rule in policy["spec"]["egress"] if {port["port"] for port in rule["ports"]} != {53}]
            if ("://" in out) != bool(ways_out):
                yield f"it writes to {out}, and besides DNS reaches {ways_out}"
            if policy["spec"].get("ingress") or "Ingress" not in policy["spec"]["policyTypes"]:
                yield "somebody may call it"


CHECKS: dict[str, Callable[[Objects], Problems]] = {
    check.__name__: check
    for check in (
        selectors_match_labels,
        ports_resolve,
        resources_add_up,
        a_rollout_can_begin,
        the_grace_period_covers_the_drain,
        one_autoscaler_at_most,
        a_budget_leaves_room,
        references_resolve,
        pods_are_restricted,
        workers_share_the_shards,
        workers_reach_their_store,
    )
}

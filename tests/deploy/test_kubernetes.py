"""Manifests of Kubernetes, rendered by kustomize: environments, Secrets, names with hashes, probes and placement."""

from __future__ import annotations

import os
import re
from typing import Final
from unittest import mock

import pytest

from services.billing.settings import BillingSettings
from services.gateway.middleware import MAX_BODY_BYTES
from services.gateway.server import ARRIVAL_SECONDS, IDLE_SECONDS
from services.gateway.settings import GatewaySettings
from services.operator.doctor.access import kafka_access, mongo_access
from services.operator.doctor.checks import CHECK_SECONDS
from services.operator.doctor.settings import LoadedSettings
from services.operator.settings import OperatorSettings
from shared.settings import SettingsError, load
from tests.deploy.environments import (
    ROOT,
    SETTINGS,
    all_variables,
    command_named,
    own_variables,
    settings,
    variables,
)
from tests.deploy.manifests import DEPLOYED, FOLDER, OVERLAYS, SERVICES, Rendered, env_file, read, render

STRIPE_CALLS_PER_SECOND: Final = {True: 100, False: 25}
"""Calls that Stripe accepts in live and in test mode, https://docs.stripe.com/rate-limits."""
DIGEST: Final = re.compile(r"registry\.example\.com/nest@sha256:[0-9a-f]{64}")
ZEROS: Final = "0" * 64
TOPICS: Final = "name: topics\n    behavior: merge"
PODS: Final = (*SERVICES, "topics")
EXAMPLES: Final = {path.stem: env_file(path) for path in (ROOT / FOLDER / "secrets.example").glob("*.env")}
PROCESSES: Final = {service: service for service in SERVICES} | {"topics": "operator"}
"""The process whose Kafka user and Secret a pod has."""

every_overlay = pytest.mark.parametrize("overlay", OVERLAYS)
deployed_overlays = pytest.mark.parametrize("overlay", DEPLOYED)
every_service = pytest.mark.parametrize("service", SERVICES)


@every_overlay
@every_service
@pytest.mark.parametrize("optional", [True, False])
def test_each_service_starts_with_its_environment(service: str, overlay: str, *, optional: bool) -> None:
    environment = render(overlay).environment(service, optional=optional)
    # Their password is absent too.
    absent = set() if optional else {"NEST_SMTP_USERNAME", "NEST_SMTP_SECOND_USERNAME"}
    loaded = settings(service, {name: value for name, value in environment.items() if name not in absent})
    assert loaded.environment == ("staging" if overlay == "staging" else "production")


@every_service
def test_each_required_key_of_a_secret_is_needed(service: str) -> None:
    manifests = render("production")
    environment = manifests.environment(service)
    for name, reference in manifests.secret_keys(service).items():
        if not reference.get("optional"):
            with pytest.raises(SettingsError):
                settings(service, {key: value for key, value in environment.items() if key != name})


@every_service
def test_no_service_has_secrets_that_it_does_not_read(service: str) -> None:
    assert set(render("production").secret_keys(service)) <= variables(service) | own_variables(service)


@every_overlay
@pytest.mark.parametrize("pod", PODS)
def test_each_pod_logs_in_to_kafka_as_a_user_of_its_own(pod: str, overlay: str) -> None:
    with mock.patch.dict(os.environ, render(overlay).environment(pod), clear=True):
        kafka = (load(SETTINGS[pod]) if pod in SETTINGS else load(OperatorSettings)).kafka
    assert (kafka.protocol, kafka.user) == ("SASL_SSL", PROCESSES[pod])
    assert kafka.password is not None


@every_overlay
@pytest.mark.parametrize("pod", PODS)
def test_each_pod_has_a_secret_and_a_service_account_of_its_own(pod: str, overlay: str) -> None:
    manifests = render(overlay)
    (secret,) = {reference["name"] for reference in manifests.secret_keys(pod).values()}
    assert re.fullmatch(f"nest-{PROCESSES[pod]}(-[0-9a-z]+)?", secret)
    assert manifests.pod(pod)["serviceAccountName"] == pod
    assert manifests.objects("ServiceAccount")[pod]["automountServiceAccountToken"] is False
    urls = {name for name in manifests.secret_keys(pod) if name.endswith("MONGO_URL")}
    assert urls == ({f"NEST_{pod.upper()}_MONGO_URL"} if pod not in ("gateway", "topics") else set())


@pytest.mark.parametrize("pod", PODS)
def test_certificates_of_an_overlay_are_mounted_where_its_settings_say(pod: str) -> None:
    manifests = render("everything")
    (volume,), (mount,) = manifests.pod(pod)["volumes"], manifests.container(pod)["volumeMounts"]
    files = manifests.objects("ConfigMap")[volume["configMap"]["name"]]["data"]
    folder, _, name = manifests.settings(pod)["NEST_KAFKA_CA_FILE"].rpartition("/")
    assert mount == {"name": volume["name"], "mountPath": folder, "readOnly": True}
    assert files[name].startswith("-----BEGIN CERTIFICATE")


@pytest.mark.parametrize("pod", PODS)
def test_the_examples_list_exactly_the_used_secrets_without_values(pod: str) -> None:
    example = EXAMPLES[PROCESSES[pod]]
    doctor = set(render("everything").secret_keys("doctor")) if pod == "topics" else set()
    assert set(example) == set(render("production").secret_keys(pod)) | doctor
    assert not any(example.values())


@every_overlay
def test_every_named_setting_exists(overlay: str) -> None:
    assert set(render(overlay).settings()) <= all_variables()
    assert set().union(*EXAMPLES.values()) <= all_variables().union(*map(own_variables, PROCESSES.values()))


@every_overlay
def test_the_namespace_is_an_object_with_the_restricted_pod_standard(overlay: str) -> None:
    manifests = render(overlay)
    ((name, namespace),) = manifests.objects("Namespace").items()
    modes = ("enforce", "audit", "warn")
    assert {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in modes}.items() <= namespace["metadata"][
        "labels"
    ].items()
    others = [each for each in manifests.all if each["kind"] != "Namespace"]
    assert {each["metadata"].get("namespace") for each in others} == {name}


def test_staging_generates_images_configuration_and_secrets_as_production_does() -> None:
    (production,), (staging,) = (
        read(ROOT / OVERLAYS[name] / "kustomization.yaml") for name in ("staging", "production")
    )
    for field in ("images", "configMapGenerator", "secretGenerator", "replacements", "components"):
        assert staging[field] == production[field]


@pytest.mark.parametrize(
    ("file", "old", "new", "pods"),
    [
        ("kustomization.yaml", ZEROS, "1" * 64, PODS),
        ("settings.env", "NEST_KAFKA_BOOTSTRAP=kafka-0", "NEST_KAFKA_BOOTSTRAP=kafka-9", PODS),
        ("settings.env", "NEST_MAIL_PRODUCT_NAME=Example", "NEST_MAIL_PRODUCT_NAME=Other", PODS),
        ("kustomization.yaml", f"{TOPICS}\n", f"{TOPICS}\n    literals: [TOPICS_REPLICATION=1]\n", ["topics"]),
        ("secrets/operator.env", "=", "=x", []),
        *[(f"secrets/{service}.env", "PASSWORD=", "PASSWORD=x", [service]) for service in SERVICES],
    ],
    ids=["image", "brokers", "setting", "replication", "operator", *SERVICES],
)
def test_a_change_rolls_the_pods_that_read_it(file: str, old: str, new: str, pods: list[str]) -> None:
    before = render("production")
    after = render("production", {file: (old, new)})
    changed = [name for name, template in before.pods().items() if after.pods()[name] != template]
    assert sorted(changed) == sorted(pods)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("kustomization.yaml", ZEROS, "1" * 64),
        ("kustomization.yaml", "newName: registry.example.com", "newName: registry2.example.com"),
        ("settings.env", "SCRAM-SHA-512", "SCRAM-SHA-256"),
        ("settings.env", "NEST_ISSUER=https://", "NEST_ISSUER=https://other."),
        ("secrets/operator.env", "=", "=x"),
        ("secrets/auth.env", "=", "=x"),
        ("peers.yaml", "kube-system", "other"),
    ],
    ids=["image", "registry", "mechanism", "issuer", "operator", "auth", "peers"],
)
def test_a_job_that_changes_has_a_new_name(file: str, old: str, new: str) -> None:
    # Jobs are immutable: the API server refuses a changed one of the same name.
    before, after = render("production").objects("Job"), render("production", {file: (old, new)}).objects("Job")
    for name in before.keys() & after.keys():
        assert before[name]["spec"] == after[name]["spec"]
    assert (before == after) == (before.keys() == after.keys())


@every_overlay
def test_each_service_is_a_deployment_with_its_own_command(overlay: str) -> None:
    manifests = render(overlay)
    assert set(manifests.objects("Deployment")) == set(SERVICES)
    for service in SERVICES:
        assert manifests.container(service)["args"] == ["run", service]
        assert command_named(manifests.container(service)["args"]) == "nest run"
    environment = manifests.settings("topics")
    arguments = [re.sub(r"\$\((\w+)\)", lambda match: environment[match[1]], each) for each in _topics(manifests)]
    assert command_named(arguments, environment) == "nest topics apply"
    assert environment["TOPICS_REPLICATION"] == "3"


@every_overlay
@every_service
def test_the_doctor_in_a_services_pod_checks_that_service_alone(service: str, overlay: str) -> None:
    with mock.patch.dict(os.environ, render(overlay).environment(service), clear=True):
        loaded, kafka = LoadedSettings(), kafka_access()
        mongo = mongo_access(loaded)
    assert (set(loaded.settings), loaded.errors, loaded.belonging) == ({service}, {}, {service})
    assert kafka.connection is not None
    assert kafka.connection.user == service
    assert set(mongo.databases) == mongo.required == ({service} - {"gateway"})


@pytest.mark.parametrize("optional", [True, False])
def test_the_doctor_checks_kafka_as_operator_and_skips_the_services_settings(*, optional: bool) -> None:
    manifests = render("everything")
    environment = manifests.environment("doctor", optional=optional)
    with mock.patch.dict(os.environ, environment, clear=True):
        loaded, kafka = LoadedSettings(), kafka_access()
        mongo = mongo_access(loaded)
    assert (loaded.settings, loaded.errors, set(loaded.absent)) == ({}, {}, set(SERVICES))
    assert kafka.connection is not None
    assert kafka.connection.user == "operator"
    assert set(mongo.databases) == ({"auth", "billing", "mailer", "news"} if optional else set())
    assert environment["NEST_URL"].removeprefix("http://") in manifests.objects("Service")


def test_the_doctors_job_runs_the_image_without_privileges_or_token() -> None:
    manifests = render("everything")
    spec, container = manifests.pod("doctor"), manifests.container("doctor")
    assert command_named(container["args"], manifests.environment("doctor")) == "nest doctor"
    for shared in ("automountServiceAccountToken", "enableServiceLinks", "securityContext"):
        assert spec[shared] == manifests.pod("auth")[shared]
    for shared in ("image", "securityContext", "envFrom"):
        assert container[shared] == manifests.container("auth")[shared]
    assert manifests.objects("ServiceAccount")[spec["serviceAccountName"]]["automountServiceAccountToken"] is False
    # A deadline longer than that of the checks, and one attempt: the exit code is the result.
    job = manifests.objects("CronJob")["doctor"]["spec"]["jobTemplate"]["spec"]
    assert job["activeDeadlineSeconds"] > 2 * CHECK_SECONDS
    assert (job["backoffLimit"], spec["restartPolicy"]) == (0, "Never")


def _topics(manifests: Rendered) -> list[str]:
    return list(manifests.container("topics")["args"])


@every_overlay
@pytest.mark.parametrize("pod", PODS)
def test_every_pod_runs_the_image_by_digest_without_privileges_or_token(pod: str, overlay: str) -> None:
    manifests = render(overlay)
    spec, container = manifests.pod(pod), manifests.container(pod)
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert DIGEST.fullmatch(container["image"])
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "memory" in container["resources"]["limits"]


@every_overlay
@every_service
def test_selectors_match_the_intended_pods(service: str, overlay: str) -> None:
    manifests = render(overlay)
    labels = {"app.kubernetes.io/name": "nest", "app.kubernetes.io/component": service}
    deployment = manifests.objects("Deployment")[service]
    spec = deployment["spec"]
    # docs/kubernetes.md selects Deployments by them.
    assert labels.items() <= deployment["metadata"]["labels"].items()
    assert spec["selector"]["matchLabels"] == labels
    assert spec["template"]["metadata"]["labels"] == labels
    assert manifests.objects("PodDisruptionBudget")[service]["spec"]["selector"]["matchLabels"] == labels
    assert manifests.objects("Service")["gateway"]["spec"]["selector"]["app.kubernetes.io/component"] == "gateway"


@every_service
def test_the_pods_of_a_release_spread_over_zones_and_nodes(service: str) -> None:
    constraints = render("production").pod(service)["topologySpreadConstraints"]
    assert [each["topologyKey"] for each in constraints] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    for each in constraints:
        assert each["matchLabelKeys"] == ["app.kubernetes.io/component", "pod-template-hash"]
        assert each["labelSelector"] == {"matchLabels": {"app.kubernetes.io/name": "nest"}}


@every_service
def test_probes_use_the_health_port(service: str) -> None:
    manifests = render("production")
    container = manifests.container(service)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert str(ports["health"]) == manifests.settings()["NEST_HEALTH_PORT"]
    paths = {kind: container[kind]["httpGet"] for kind in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert {probe["port"] for probe in paths.values()} == {"health"}
    assert {kind: probe["path"] for kind, probe in paths.items()} == {
        "startupProbe": "/healthz",
        "readinessProbe": "/readyz",
        "livenessProbe": "/metrics",
    }


@every_overlay
def test_every_port_is_open_on_ipv4_and_ipv6(overlay: str) -> None:
    manifests = render(overlay)
    assert {manifests.settings()[name] for name in ("NEST_HOST", "NEST_HEALTH_HOST")} == {"::"}
    assert manifests.objects("Service")["gateway"]["spec"]["ipFamilyPolicy"] == "PreferDualStack"


@every_service
def test_the_termination_grace_period_is_longer_than_the_drain(service: str) -> None:
    manifests = render("production")
    drain = settings(service, manifests.environment(service)).drain_seconds
    hook = manifests.container(service).get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["0"])
    assert manifests.pod(service)["terminationGracePeriodSeconds"] >= int(hook[-1]) + drain + 10


@every_overlay
def test_all_pods_of_billing_together_stay_below_the_limit_of_stripe(overlay: str) -> None:
    manifests = render(overlay)
    deployment = manifests.objects("Deployment")["billing"]["spec"]
    scaled = manifests.objects("ScaledObject").get("billing", {"spec": {}})["spec"]
    pods = scaled.get("maxReplicaCount") or deployment["replicas"]
    pods += deployment["strategy"]["rollingUpdate"]["maxSurge"]
    environment = manifests.environment("billing")
    loaded = settings("billing", environment)
    assert isinstance(loaded, BillingSettings)
    assert loaded.stripe_calls_per_second is not None
    assert pods * loaded.stripe_calls_per_second < STRIPE_CALLS_PER_SECOND[loaded.stripe_livemode]


@deployed_overlays
def test_billing_stays_below_the_limit_of_stripe_with_keda_too(overlay: str) -> None:
    folder = ROOT / FOLDER / "components/keda"
    (most,) = [
        each["spec"]["maxReplicaCount"]
        for each in read(folder / "scaled-objects.yaml")
        if each["kind"] == "ScaledObject" and each["metadata"]["name"] == "billing"
    ]
    values = render(overlay).settings("billing")
    limit = STRIPE_CALLS_PER_SECOND[values["NEST_STRIPE_LIVEMODE"] == "true"]
    assert (most + 1) * float(values["NEST_STRIPE_CALLS_PER_SECOND"]) < limit


@deployed_overlays
def test_the_ingress_leads_to_the_gateway_under_the_host_of_the_issuer(overlay: str) -> None:
    manifests = render(overlay)
    ingress = manifests.objects("Ingress")["gateway"]["spec"]
    host = manifests.settings()["NEST_ISSUER"].removeprefix("https://")
    ((rule,), (tls,)) = ingress["rules"], ingress["tls"]
    assert (rule["host"], tls["hosts"], tls["secretName"]) == (host, [host], "nest-tls")
    backend = rule["http"]["paths"][0]["backend"]["service"]
    ports = {port["name"]: port for port in manifests.objects("Service")[backend["name"]]["spec"]["ports"]}
    target = ports[backend["port"]["name"]]["targetPort"]
    served = {port["name"]: port["containerPort"] for port in manifests.container("gateway")["ports"]}
    assert str(served[target]) == manifests.settings()["NEST_PORT"]


def _longest_call(manifests: Rendered) -> float:
    loaded = settings("gateway", manifests.environment("gateway"))
    assert isinstance(loaded, GatewaySettings)
    return ARRIVAL_SECONDS + loaded.reply_seconds


@deployed_overlays
def test_nginx_has_the_body_limit_of_the_gateway_and_longer_timeouts(overlay: str) -> None:
    manifests = render(overlay)
    ingress = manifests.objects("Ingress")["gateway"]
    assert ingress["spec"]["ingressClassName"] == "nginx"
    notes = ingress["metadata"]["annotations"]
    for size in ("nginx.org/client-max-body-size", "nginx.ingress.kubernetes.io/proxy-body-size"):
        assert int(notes[size].removesuffix("k")) * 1024 == MAX_BODY_BYTES
    for prefix in ("nginx.org", "nginx.ingress.kubernetes.io"):
        for direction in ("read", "send"):
            assert float(notes[f"{prefix}/proxy-{direction}-timeout"].removesuffix("s")) > _longest_call(manifests)


def test_traefik_leads_to_the_gateway_with_its_body_limit_and_longer_timeouts() -> None:
    manifests = render("everything")
    assert not manifests.objects("Ingress")
    spec = manifests.objects("IngressRoute")["gateway"]["spec"]
    (route,) = spec["routes"]
    assert route["match"] == f"Host(`{manifests.settings()['NEST_ISSUER'].removeprefix('https://')}`)"
    assert spec["tls"] == {"secretName": "nest-tls"}
    (service,), (middleware,) = route["services"], route["middlewares"]
    assert service["port"] in {port["name"] for port in manifests.objects("Service")[service["name"]]["spec"]["ports"]}
    buffering = manifests.objects("Middleware")[middleware["name"]]["spec"]["buffering"]
    assert buffering == {"maxRequestBodyBytes": MAX_BODY_BYTES}
    timeouts = manifests.objects("ServersTransport")[service["serversTransport"]]["spec"]["forwardingTimeouts"]
    assert float(timeouts["responseHeaderTimeout"].removesuffix("s")) > _longest_call(manifests)
    assert float(timeouts["idleConnTimeout"].removesuffix("s")) < IDLE_SECONDS

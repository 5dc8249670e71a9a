"""Commands and fragments of the documents that no test of this folder runs, each with the reason."""

from __future__ import annotations

from typing import Final

STARTED: Final = "the tests start the same Nest, without the installation"
INSTALLED: Final = "installs packages, which the tests have installed already, from a registry"
CLUSTER: Final = "needs a cluster; `make try-apiserver` applies the manifests"
DOCKER: Final = "needs Docker; `make test-image` runs it"
SERVER: Final = "changes the server; tests/deploy/test_one_server.py checks the files"
ELSEWHERE: Final = "calls a Nest, or the Kafka of a deployment, at a name of the example"
UNKNOWN: Final = "names a person or a record of the example; tests/operator runs the command"
THREE: Final = "needs three brokers; the tests have one"
STRIPE: Final = "needs a test account of Stripe and its command line"
LOST: Final = "tests/faults/test_disasters.py runs both procedures after a loss"

COMMANDS: Final[dict[tuple[str, str], str]] = {
    ("*", "make run"): STARTED,
    ("*", "NEST_CORS_ORIGINS=http://localhost:5173 make run"): STARTED,
    ("*", "pip install"): INSTALLED,
    ("*", "npm install"): INSTALLED,
    ("docs/start/typescript.md", "(cd ../nest/clients/typescript"): INSTALLED,
    ("*", "python3 -m venv"): "an environment of its own needs the packages once more",
    ("*", "go mod init"): INSTALLED,
    ("*", "kubectl"): CLUSTER,
    ("docs/compose.md", ""): DOCKER,
    ("docs/kubernetes.md", "make try-apiserver"): "builds a kube-apiserver in 8 minutes",
    ("docs/performance.md", "make bench"): "runs for minutes; tests/bench/test_bench.py runs a short one",
    (
        "docs/performance.md",
        "make profile JOB=refresh",
    ): "runs for a minute; tests/bench/test_bench.py runs a short one",
    ("docs/deploy/one-server.md", ""): SERVER,
    ("docs/nest-command.md", "nest login"): ELSEWHERE,
    ("docs/nest-command.md", "nest clients list --profile"): ELSEWHERE,
    ("docs/nest-command.md", "nest profiles remove"): ELSEWHERE,
    ("docs/nest-command.md", "nest users find"): UNKNOWN,
    ("docs/nest-command.md", "nest stripe payments"): UNKNOWN,
    ("docs/operations.md", "nest topics apply --bootstrap kafka:9092 --replication 3"): THREE,
    ("docs/operations.md", "nest topics check --bootstrap kafka:9092 --replication 3"): THREE,
    ("docs/operations.md", "NEST_KAFKA_USER=admin"): THREE,
    ("docs/operations.md", "export NEST_"): ELSEWHERE,
    ("docs/operations.md", "nest run auth"): "runs until it is stopped; tests/end_to_end starts each service",
    ("docs/operations.md", "kafka-configs.sh"): "a command of Kafka; tests/abuse/test_bus_access.py makes such users",
    ("docs/operations.md", "nest dead show"): UNKNOWN,
    ("docs/operations.md", "nest dead replay"): UNKNOWN,
    ("docs/operations.md", "nest stripe setup --file"): "needs a file of plans; tests/operator runs the command",
    (
        "docs/operations.md",
        "nest keys rotate",
    ): "would rotate the keys of all pages; tests/end_to_end/test_key_rotation.py runs it",
    ("docs/partitions.md", ""): "stops the shared Nest for seconds; tests/operator runs the growth of topics",
    ("docs/recovery.md", ""): LOST,
    ("docs/runbook/NestDeadLetters.md", "nest dead show"): UNKNOWN,
    (
        "docs/runbook/*",
        "nest topics check",
    ): "the Kafka of the tests has fewer partitions; tests/operator runs the command",
    ("docs/stripe.md", "nest stripe replay evt_1"): UNKNOWN,
    (
        "docs/stripe.md",
        "nest stripe import",
    ): "asks for a confirmation at a terminal; tests/operator runs it with --yes",
    ("docs/webhooks.md", "nest webhooks"): UNKNOWN,
    (
        "docs/billing-playground.md",
        "curl",
    ): "names variables of the reader; tests/browser and tests/stripe_double make these calls",
    ("docs/billing-playground.md", "stripe listen"): STRIPE,
    ("docs/billing-playground.md", "export NEST_"): STRIPE,
    ("docs/billing-playground.md", ".venv/bin/nest"): STRIPE,
    ("README.md", ".venv/bin/nest run auth"): "runs until it is stopped; tests/end_to_end starts each service",
}
"""By page and beginning of the command, either of which may end with `*`."""

FRAGMENTS: Final[dict[tuple[str, str], str]] = {
    ("docs/recipes/mobile.md", "onOpenURL"): "a part of an iOS app, which needs Xcode",
    ("docs/recipes/mobile.md", "<intent-filter"): "a part of an Android manifest",
    ("docs/move/supabase-auth.md", "SELECT"): "runs in Supabase's Postgres",
    ("docs/deploy/one-server.md", "rs.initiate"): "runs in mongosh",
    ("docs/kubernetes.md", "createUser"): "runs in mongosh",
    ("docs/webhooks.md", "WebhookVerifier"): "tests/mailer/webhooks/test_documented_receivers.py runs it",
    ("docs/operations.md", "report-to-nest"): "runs in Postfix; tests/gateway/test_webhooks_mail.py signs such reports",
    ("docs/operations.md", "createUser"): "runs in mongosh",
}
"""By page and a part of the block."""

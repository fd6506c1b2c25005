"""Breaks that must be seen: a check that never failed proves nothing."""

import copy
import json

from rendered import Rendered, container


def tandem(r):
    return container(r.tandem(), "tandem")


def settings(r):
    name = tandem(r)["envFrom"][0]["configMapRef"]["name"]
    return r.get("ConfigMap", name)["data"]


def policy(r, name):
    return r.get("NetworkPolicy", name)["spec"]


def rule(r, name):
    groups = r.all("PrometheusRule")[0]["spec"]["groups"]
    return next(one for group in groups for one in group["rules"] if one["alert"] == name)


def board(r, change):
    data = r.get("ConfigMap", "tandem-dashboard")["data"]
    content = json.loads(data["dashboard.json"])
    change(content)
    data["dashboard.json"] = json.dumps(content)


def probe(r, kind, **change):
    tandem(r)[kind]["httpGet"].update(change)


def annotations(thing, **change):
    for name, value in change.items():
        thing["metadata"]["annotations"]["service.beta.kubernetes.io/aws-load-balancer-quic-enabled-" + name] = value


def spec(r, kind, name):
    return r.get(kind, name)["spec"]


# What is broken → how → a part of the complaint.
BREAKS = {
    "base": [
        (lambda r: spec(r, "Deployment", "tandem").update(replica=3), "Additional properties"),
        (lambda r: spec(r, "Deployment", "tandem").update(replicas="three"), "not of type 'integer'"),
        (lambda r: spec(r, "Service", "tandem")["selector"].update(tier="x"), "selects no pod"),
        (lambda r: spec(r, "Deployment", "tandem")["selector"]["matchLabels"].update(tier="x"), "not its pods' labels"),
        (lambda r: spec(r, "PodDisruptionBudget", "tandem")["selector"]["matchLabels"].update(tier="x"), "selects no pod"),
        (lambda r: spec(r, "Service", "tandem")["ports"][0].update(targetPort="quick"), "no pod listens"),
        (lambda r: spec(r, "Service", "tandem")["ports"][0].update(port=4433), "clients are told"),
        (lambda r: spec(r, "Service", "tandem")["ports"].pop(0), "clients are told"),
        (lambda r: spec(r, "Service", "tandem").update(externalTrafficPolicy="Cluster"), "not Local"),
        (lambda r: spec(r, "StatefulSet", "tandem-redis").update(serviceName="redis"), "no headless Service"),
        (lambda r: settings(r).update(QUIC_PORT="4433"), "container port quic"),
        (lambda r: settings(r).update(MAX_SESIONS="1"), "MAX_SESIONS is no setting"),
        (lambda r: settings(r).update(MAX_SESSIONS="0"), "not within"),
        (lambda r: settings(r).update(POSTGRES_PASSWORD="x"), "belongs into a Secret"),
        (lambda r: settings(r).update(REDIS_HOST="redis"), "is no Service"),
        (lambda r: settings(r).update(REDIS_HOST=""), "neither REDIS_URL"),
        (lambda r: settings(r).update(POSTGRES_POOL_SIZE="50"), "PostgreSQL takes"),
        (lambda r: settings(r).update(TLS_CERT_PATH="/tls/tls.crt"), "on no volume"),
        (lambda r: settings(r).update(TLS_CERT_PATH="", TLS_KEY_PATH=""), "certificate of its own"),
        (lambda r: tandem(r)["env"].append({"name": "NODE_NAME", "value": "x"}), "NODE_NAME is no setting"),
        (lambda r: tandem(r)["env"].append({"name": "LOG_LEVEL", "value": "$(NOBODY)"}), "quotes NOBODY"),
        (lambda r: tandem(r)["env"].append({"name": "REDIS_URL", "value": "redis://x"}), "say it in one way"),
        (lambda r: tandem(r)["env"].pop(next(i for i, one in enumerate(tandem(r)["env"]) if one["name"] == "NODE_ID")), "NODE_ID"),
        (lambda r: tandem(r)["env"][-1]["valueFrom"].update(secretKeyRef={"name": "tandem-secrets", "key": "PASS"}), "has no PASS"),
        (lambda r: tandem(r)["env"][-1]["valueFrom"].update(secretKeyRef={"name": "secrets", "key": "x"}), "nobody makes Secret"),
        (lambda r: r.get("Secret", "tandem-secrets")["data"].update(REDIS_PASSWORD="aHVudGVy"), "values in the repository"),
        (lambda r: tandem(r)["envFrom"][0]["configMapRef"].update(name="settings"), "no ConfigMap"),
        (lambda r: tandem(r)["volumeMounts"][0].update(name="dat"), "no volume dat"),
        (lambda r: tandem(r).update(image="tandem:latest"), "no version"),
        (lambda r: tandem(r).update(image="tandem:2.9.0"), "Cargo.toml says"),
        (lambda r: probe(r, "readinessProbe", path="/readyz"), "no route"),
        (lambda r: probe(r, "livenessProbe", port="web"), "nobody listens"),
        (lambda r: probe(r, "livenessProbe", path="/ready"), "must end no pod"),
        (lambda r: probe(r, "readinessProbe", path="/ready"), "must end no pod"),
        (lambda r: tandem(r).pop("startupProbe"), "no startupProbe"),
        (lambda r: tandem(r)["resources"].pop("limits"), "no limits"),
        (lambda r: tandem(r)["securityContext"].pop("readOnlyRootFilesystem"), "can be written"),
        (lambda r: tandem(r)["securityContext"].update(allowPrivilegeEscalation=True), "restricted profile"),
        (lambda r: r.tandem()["securityContext"].pop("sysctls"), "nobody but root may listen"),
        (lambda r: r.tandem().update(terminationGracePeriodSeconds=30), "too few"),
        (lambda r: r.tandem().update(enableServiceLinks=True), "service links"),
        (lambda r: r.tandem().update(automountServiceAccountToken=True), "token of the cluster"),
        (lambda r: spec(r, "Deployment", "tandem")["strategy"]["rollingUpdate"].update(maxUnavailable=1), "a rolling update"),
        (lambda r: policy(r, "tandem")["ingress"][0]["ports"].pop(0), "shut the public UDP"),
        (lambda r: policy(r, "tandem")["ingress"][0]["ports"].append({"port": 4001, "protocol": "TCP"}), "everybody at PORT"),
        (lambda r: policy(r, "tandem")["ingress"][0]["ports"][0].update(port=444), "nobody listens"),
        (lambda r: policy(r, "tandem")["egress"].pop(0), "from DNS"),
        (lambda r: policy(r, "tandem-redis").update(ingress=[]), "keep tandem from StatefulSet/tandem-redis"),
        (lambda r: policy(r, "tandem-postgres")["podSelector"]["matchLabels"].update(a="b"), "selects no pod"),
        (lambda r: r.objects.remove(r.get("NetworkPolicy", "default-deny")), "denies everything"),
        (lambda r: r.get("Service", "tandem")["metadata"].update(namespace="default"), "is in namespace"),
        (lambda r: spec(r, "HorizontalPodAutoscaler", "tandem").update(maxReplicas=60), "less than what may run"),
        (lambda r: spec(r, "HorizontalPodAutoscaler", "tandem")["metrics"][1]["pods"]["metric"].update(name="tandem_sessions"), "no metric of tandem"),
        (lambda r: spec(r, "HorizontalPodAutoscaler", "tandem").update(minReplicas=4), "outside what the autoscaler"),
    ],
    "overlays/prod": [
        (lambda r: rule(r, "TandemDown").update(expr="upp == 0"), "no metric in"),
        (lambda r: rule(r, "TandemSlowReaders").update(expr="rate(tandem_outbox_overflow_total[5m]) > 1"), "is no metric of tandem"),
        (lambda r: rule(r, "TandemSlowReaders").update(expr="rate(tandem_rooms[5m]) > 1"), "rate of a gauge"),
        (lambda r: rule(r, "TandemSlowReaders").update(expr='rate(tandem_joins_total{code="ok"}[5m]) > 1'), "has no label code"),
        (lambda r: rule(r, "TandemSlowReaders").update(expr="sum by (code) (rate(tandem_joins_total[5m])) > 1"), "by (code)"),
        (lambda r: rule(r, "TandemSlowReaders").update(expr="tandem_commit_seconds > 1"), "is a Histogram"),
        (lambda r: rule(r, "TandemSlowReaders").update(alert="TandemUnknown"), "has no section"),
        (lambda r: rule(r, "TandemSlowReaders")["annotations"].update(runbook_url="https://tandem.example/docs/OPERATIONS.md"), "lead to its section"),
        (lambda r: rule(r, "TandemSlowReaders")["labels"].update(severity="loud"), "severity"),
        (lambda r: rule(r, "TandemNearlyFull").update(expr="sum by (pod) (tandem_sessions_active) > 9"), "not 85 %"),
        (lambda r: board(r, lambda b: b["panels"][1]["targets"][0].update(expr="tandem_people")), "no metric of tandem"),
        (lambda r: board(r, lambda b: b["panels"][1].update(id=1)), "id twice"),
        (lambda r: tandem(r)["env"].reverse(), "quotes REDIS_AUTH"),
        (lambda r: spec(r, "StatefulSet", "tandem-redis").update(replicas=2), "is no pod here"),
        (lambda r: spec(r, "ServiceMonitor", "tandem")["endpoints"][0].update(path="/metric"), "no route"),
        (lambda r: spec(r, "ServiceMonitor", "tandem")["endpoints"][0].update(port="metrics"), "finds no Service"),
        (lambda r: spec(r, "Certificate", "tandem").update(secretName="tls"), "nobody mounts"),
        (lambda r: policy(r, "tandem-redis-peers")["ingress"].pop(1), "port sentinel (ingress)"),
    ],
    "base + aws-quic": [
        (lambda r: r.get("Namespace", "tandem")["metadata"]["labels"].pop("elbv2.k8s.aws/quic-server-id-inject"), "0 namespaces with ids"),
        (lambda r: annotations(r.get("Deployment", "tandem")["spec"]["template"], containers="app"), "no container app"),
        (lambda r: annotations(r.get("Service", "tandem"), ports="4433"), "offers UDP on"),
    ],
    "base + ingress-wss": [
        (lambda r: spec(r, "Ingress", "tandem")["rules"][0]["http"]["paths"][3].update(pathType="Prefix"), "shows /metrics"),
        (lambda r: spec(r, "Ingress", "tandem")["rules"][0]["http"]["paths"][0]["backend"]["service"]["port"].update(name="web"), "leads nowhere"),
        (lambda r: settings(r).update(TRUSTED_PROXIES=""), "without TRUSTED_PROXIES"),
    ],
}

# The file → what is replaced → by what → a part of the complaint.
FILE_BREAKS = [
    ("compose", "docker-compose.yml", "NODE_ID: b", "NODE_ID: a", "nodes' names"),
    ("compose", "docker-compose.yml", "LOG_FORMAT: json", "LOGFORMAT: json", "LOGFORMAT is no setting"),
    ("compose", "docker-compose.yml", "    pull_policy: never\n", "", "ask a registry"),
    ("compose", "docker-compose.yml", "    hostname: tandem-b\n    env_file: .env\n", "    build: .\n    hostname: tandem-b\n    env_file: .env\n", "race on its tag"),
    ("compose", "docker-compose.yml", "    hostname: tandem-b\n", "", "new certificate"),
    ("compose", "docker-compose.yml", "    hostname: tandem-b\n    env_file: .env\n", "    hostname: tandem-b\n", "doesn't reach it"),
    ("compose", "docker-compose.yml", "-q -h 127.0.0.1", "-q", "temporary server"),
    ("compose", "docker-compose.yml", '    user: "70:70"\n', "", "runs as root"),
    ("compose", "docker-compose.yml", '    user: "70:70"\n    read_only: true\n', '    user: "70:70"\n', "write to its root"),
    ("compose", "docker-compose.yml", '"4434:4434/udp"', '"4435:4434/udp"', "same number"),
    ("compose", "docker-compose.yml", '"127.0.0.1:4002:4001"', '"4002:4001"', "127.0.0.1 only"),
    ("compose", "docker-compose.yml", "REDIS_HOST: redis", "REDIS_HOST: valkey", "is no service"),
    ("compose", "docker-compose.yml", "stop_grace_period: 30s", "stop_grace_period: 10s", "too short"),
    ("compose", "docker-compose.yml", "image: redis:8.2-alpine", "image: redis:7", "and the manifests"),
    ("compose", "docker-compose.yml", "${POSTGRES_PASSWORD:?fill it in in .env}", "secret", "must come from .env"),
    ("env", "deploy/compose.env.example", "REDIS_PASSWORD=", "REDIS_PASSWORD=x", "has a value"),
    ("env", "deploy/compose.env.example", "QUIC_SHARED_SECRET=", "#SECRET=", "no QUIC_SHARED_SECRET"),
    ("dockerfile", "Dockerfile", "COPY migrations", "COPY migration", "isn't there"),
    ("dockerfile", "Dockerfile", "COPY migrations", "COPY docs", "leaves out"),
    ("dockerfile", "Dockerfile", "USER 10001:10001", "USER tandem", "isn't 0"),
    ("dockerfile", "Dockerfile", "CERTS_DIR=", "CERT_DIR=", "CERT_DIR is no setting"),
    ("dockerfile", "Dockerfile", "4433/udp", "4433/sctp", "exposes"),
    ("dockerfile", "Dockerfile", "COPY crates crates\n", "", "lacks the workspace's crates"),
    ("dockerfile", "Dockerfile", "rust:1.", "rust:2.", "another Rust"),
    ("kustomization", "k8s/base/kustomization.yaml", "configMapGenerator:", "vars: []\nconfigMapGenerator:", "vars is deprecated"),
    ("unit", "deploy/tandem.service", "TimeoutStopSec=30", "TimeoutStopSec=20", "too short"),
    ("unit", "deploy/tandem.service", "CERTS_DIR=", "CERTS=", "CERTS is no setting"),
]


def count():
    return sum(map(len, BREAKS.values())) + len(FILE_BREAKS)


def unseen_breaks(by_name, check):
    for name, breaks in BREAKS.items():
        for number, (change, complaint) in enumerate(breaks):
            rendered = Rendered(name, copy.deepcopy(by_name[name].objects))
            change(rendered)
            seen = check(rendered)
            if not any(complaint in problem for problem in seen):
                yield f"break {number} of {name} was not seen: wanted {complaint!r}, got {seen}"


def unseen_file_breaks(sources, read):
    for source, path, old, new, complaint in FILE_BREAKS:
        text = read(path)
        assert old in text, f"{path} has no {old!r} to break"
        seen = list(sources[source](text.replace(old, new)))
        if not any(complaint in problem for problem in seen):
            yield f"a break of {path} was not seen: {old} → {new}: wanted {complaint!r}, got {seen}"

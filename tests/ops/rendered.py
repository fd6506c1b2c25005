"""One rendering of the manifests, and questions about it."""

import re

WORKLOADS = ("Deployment", "StatefulSet", "Job")
# Secrets that something else makes: name → keys; with the kind that must be there for it, or None for the operator's word.
OUTSIDE = {
    "tandem-secrets": ({"POSTGRES_PASSWORD", "REDIS_PASSWORD", "QUIC_SHARED_SECRET"}, None),
    "tandem-tls": ({"tls.crt", "tls.key"}, None),
    "tandem-ingress-tls": ({"tls.crt", "tls.key"}, None),
    "tandem-postgres-app": ({"uri"}, "Cluster"),
}


def bytes_of(text):
    """1Gi, 512Mi → bytes."""
    number, unit = re.fullmatch(r"([0-9.]+)([KMG]i)?", str(text)).groups()
    return float(number) * {None: 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}[unit]


def cores_of(text):
    """500m, 2 → cores."""
    text = str(text)
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def matches(selector, labels):
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for rule in selector.get("matchExpressions") or []:
        if rule["operator"] != "In" or labels.get(rule["key"]) not in rule["values"]:
            return False
    return True


class Rendered:
    def __init__(self, name, objects):
        self.name = name
        self.objects = [thing for thing in objects if thing]

    def all(self, *kinds):
        return [thing for thing in self.objects if thing["kind"] in kinds]

    def get(self, kind, name):
        found = [thing for thing in self.all(kind) if thing["metadata"]["name"] == name]
        return found[0] if found else None

    def pods(self):
        """Every pod template: (workload, labels, spec)."""
        for workload in self.all(*WORKLOADS):
            template = workload["spec"]["template"]
            yield workload, template["metadata"].get("labels", {}), template["spec"]
        # The operator's pods, as far as they can be known.
        for cluster in self.all("Cluster"):
            ports = [{"containerPort": 5432, "protocol": "TCP", "name": "postgresql"},
                     {"containerPort": 8000, "protocol": "TCP", "name": "status"}]
            labels = {"cnpg.io/cluster": cluster["metadata"]["name"]}
            yield cluster, labels, {"containers": [{"name": "postgres", "ports": ports, "operator": True}]}

    def selected(self, selector):
        return [(workload, spec) for workload, labels, spec in self.pods() if matches(selector, labels)]

    def tandem(self):
        return self.get("Deployment", "tandem")["spec"]["template"]["spec"]

    def settings(self):
        """What the tandem container gets from ConfigMaps."""
        merged = {}
        for source in container(self.tandem(), "tandem").get("envFrom", []):
            found = self.get("ConfigMap", source["configMapRef"]["name"])
            merged.update((found or {}).get("data", {}))
        return merged

    def environment(self):
        """What the tandem container would find in its environment; secrets are made up."""
        found = dict(self.settings())
        for one in container(self.tandem(), "tandem").get("env", []):
            source = one.get("valueFrom", {})
            made_up = "postgresql://tandem:secret@tandem-postgres-rw:5432/tandem" if one["name"].endswith("_URL") else "secret" * 6
            value = one.get("value", "tandem-0" if "fieldRef" in source else made_up)
            found[one["name"]] = re.sub(r"\$\((\w+)\)", lambda name: found[name[1]], value)
        return found

    def replicas(self):
        """Pods of tandem at the most, one surge included."""
        deployment = self.get("Deployment", "tandem")
        scaler = self.get("HorizontalPodAutoscaler", "tandem")
        most = scaler["spec"]["maxReplicas"] if scaler else deployment["spec"]["replicas"]
        return most + 1


def container(spec, name):
    return next(one for one in spec["containers"] if one["name"] == name)


def ports_of(spec):
    return [dict(port, protocol=port.get("protocol", "TCP")) for one in spec["containers"] for port in one.get("ports", [])]

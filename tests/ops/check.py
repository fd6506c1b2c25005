#!/usr/bin/env python3
"""Checks everything for operators against what the code says: check.py <kustomize command …>.

Renders base, overlays and components, validates them by the schemas of Kubernetes, cross-checks them, then breaks each on
purpose and wants every break to be seen. Leaves the alert rules (rules.yml, for promtool) and the containers' environments (for the server's own opinion) in
target/ops-tools."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import kubernetes_validate
import yaml

import broken
import facts
import files
import manifests
import watching
from rendered import Rendered

KUBERNETES = "1.37.0"
# Kinds that operators bring; their schemas are not Kubernetes' own. Cross-checked all the same.
FOREIGN = {"Certificate", "Cluster", "PrometheusRule", "ServiceMonitor"}
SETS = [
    ["two-services"],
    ["ingress-wss"],
    ["cert-manager"],
    ["redis-sentinel"],
    ["redis-cluster"],
    ["postgres-ha"],
    ["monitoring"],
    ["aws-quic"],
    ["own-secret"],
    ["two-services", "ingress-wss", "cert-manager", "monitoring", "own-secret", "redis-cluster", "postgres-ha"],
    ["ingress-wss", "redis-sentinel", "postgres-ha", "aws-quic"],
]
REPLICAS = {"overlays/dev": 1, "overlays/staging": 2, "overlays/prod": 5, "base": 3}


def render(command, directory, name):
    done = subprocess.run([*command, str(directory)], capture_output=True, text=True)
    if done.returncode or "deprecated" in done.stderr.lower():
        sys.exit(f"{name}: {done.stderr.strip()}")
    return Rendered(name, list(yaml.safe_load_all(done.stdout)))


def renderings(command):
    with tempfile.TemporaryDirectory() as temp:
        tree = Path(temp) / "k8s"
        shutil.copytree(facts.ROOT / "k8s", tree)
        yield render(command, tree / "base", "base")
        for overlay in sorted((tree / "overlays").iterdir()):
            yield render(command, overlay, f"overlays/{overlay.name}")
        for number, components in enumerate(SETS):
            directory = tree / f"set-{number}"
            directory.mkdir()
            content = {"namespace": "tandem", "resources": ["../base"], "components": [f"../components/{one}" for one in components]}
            (directory / "kustomization.yaml").write_text(yaml.safe_dump(content))
            yield render(command, directory, "base + " + " + ".join(components))


def schema(rendered, valid=set()):
    for thing in rendered.objects:
        text = json.dumps(thing, sort_keys=True)
        if thing["kind"] in FOREIGN or text in valid:
            continue
        try:
            kubernetes_validate.validate(thing, KUBERNETES, strict=True)
            # A validation takes long, and most objects are in most renderings.
            valid.add(text)
        except kubernetes_validate.ValidationError as error:
            yield f"{rendered.name}: {manifests.title(thing)}: {'.'.join(map(str, error.path))}: {error.message}"
        except kubernetes_validate.SchemaNotFoundError:
            yield f"{rendered.name}: {manifests.title(thing)}: no such kind in Kubernetes {KUBERNETES}"


def check_all(rendered, runbooks):
    # What has the wrong form can't be asked anything else.
    return list(schema(rendered)) or [*manifests.check(rendered), *watching.check(rendered, runbooks)]


def main(command):
    read, problems = facts.read, []
    runbooks = read("docs/OPERATIONS.md")
    all_of_them = list(renderings(command))
    untried = {path.name for path in (facts.ROOT / "k8s/components").iterdir()} - {name for one in SETS for name in one}
    problems += [f"component {name} is in no set" for name in untried]
    for rendered in all_of_them:
        problems += check_all(rendered, runbooks)
        wanted = REPLICAS.get(rendered.name)
        if wanted and rendered.get("Deployment", "tandem")["spec"]["replicas"] != wanted:
            problems.append(f"{rendered.name}: not {wanted} replicas")

    images = {one["image"] for rendered in all_of_them for _, _, spec in rendered.pods() for one in spec["containers"] if "image" in one}
    sources = {
        "compose": lambda text=read("docker-compose.yml"): files.compose(yaml.safe_load(text), images),
        "env": lambda text=read("deploy/compose.env.example"): files.env_example(text, read("docker-compose.yml")),
        "dockerfile": lambda text=read("Dockerfile"): files.dockerfile(text, read(".dockerignore"), lambda path: (facts.ROOT / path).exists(), read("Cargo.toml")),
        "kustomization": lambda text=read("k8s/base/kustomization.yaml"): files.kustomization("k8s/base", yaml.safe_load(text)),
        "unit": lambda text=read("deploy/tandem.service"): files.unit(text),
    }
    for one in sources.values():
        problems += one()
    for path in sorted((facts.ROOT / "k8s").rglob("kustomization.yaml")):
        problems += files.kustomization(path.relative_to(facts.ROOT), yaml.safe_load(path.read_text()))

    by_name = {rendered.name: rendered for rendered in all_of_them}
    if not problems:
        problems += broken.unseen_breaks(by_name, lambda rendered: check_all(rendered, runbooks))
        problems += broken.unseen_file_breaks(sources, read)

    rules = [thing["spec"]["groups"] for thing in by_name["overlays/prod"].all("PrometheusRule")]
    out = facts.ROOT / "target/ops-tools"
    out.mkdir(parents=True, exist_ok=True)
    (out / "rules.yml").write_text(yaml.safe_dump({"groups": [group for groups in rules for group in groups]}))

    (out / "environments.json").write_text(json.dumps({rendered.name: rendered.environment() for rendered in all_of_them}))

    for problem in dict.fromkeys(problems):
        print(problem, file=sys.stderr)
    if problems:
        sys.exit(1)
    objects = sum(len(rendered.objects) for rendered in all_of_them)
    print(f"{len(all_of_them)} renderings, {objects} objects, {broken.count()} breaks seen; Kubernetes {KUBERNETES}; "
          f"without a schema: {', '.join(sorted(FOREIGN))}")


if __name__ == "__main__":
    main(sys.argv[1:])

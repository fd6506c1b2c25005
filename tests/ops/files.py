"""Checks of what is no manifest: the image, the compose stack, the unit, the kustomizations themselves."""

import re
import shlex

import facts

DEPRECATED = {"commonLabels", "patchesStrategicMerge", "patchesJson6902", "vars", "bases", "imageTags", "helmChartInflationGenerator"}


def seconds(text):
    return float(re.fullmatch(r"(\d+)s?", str(text))[1])


def compose(stack, images):
    known, drain = facts.settings(), facts.drain_seconds()
    nodes = {name: one for name, one in stack["services"].items() if name.startswith("tandem")}
    if len(nodes) != 2:
        yield f"compose: {len(nodes)} nodes, not two"
    for name, one in stack["services"].items():
        if "healthcheck" not in one:
            yield f"compose: {name} has no healthcheck"
        if name not in nodes and one["image"] not in images:
            yield f"compose: {name} runs {one['image']}, and the manifests {sorted(images)}"
        for volume in one.get("volumes", []):
            source = volume.split(":")[0]
            if not source.startswith(".") and source not in stack["volumes"]:
                yield f"compose: {name}: no volume {source}"
        for variable, value in one.get("environment", {}).items():
            if re.search("PASSWORD|SECRET", variable) and not re.match(r"\$\{\w+:\?", str(value)):
                yield f"compose: {name}: {variable} must come from .env, and be missed when it isn't there"
    yield from hardened(stack["services"])
    builders = [name for name, one in nodes.items() if "build" in one]
    if len(builders) != 1:
        yield f"compose: {len(builders)} services build the image, and would race on its tag"
    if any(one.get("pull_policy") != "never" for name, one in nodes.items() if name not in builders):
        yield "compose: the node that doesn't build would ask a registry for the image"
    ids = [one["environment"].get("NODE_ID") for one in nodes.values()]
    if None in ids or len(set(ids)) != len(ids):
        yield f"compose: the nodes' names are {ids}"
    for name, one in nodes.items():
        if one.get("env_file") != ".env":
            yield f"compose: {name}: a setting in .env doesn't reach it"
        if not one.get("hostname"):
            yield f"compose: {name} has no hostname: each new container would make a new certificate"
        env = one["environment"]
        for variable in env:
            if variable not in known:
                yield f"compose: {name}: {variable} is no setting of tandem"
        for variable in ("REDIS_HOST", "POSTGRES_HOST"):
            if env.get(variable) not in stack["services"]:
                yield f"compose: {name}: {variable}={env.get(variable)} is no service"
            elif one["depends_on"].get(env[variable], {}).get("condition") != "service_healthy":
                yield f"compose: {name} doesn't wait for {env[variable]}"
        quic = env.get("QUIC_PORT", known["QUIC_PORT"])
        for protocol in ("tcp", "udp"):
            if f"{quic}:{quic}/{protocol}" not in one["ports"]:
                yield f"compose: {name}: QUIC_PORT is {quic}, and {protocol} is not published under the same number"
        plain = [port for port in one["ports"] if port.endswith(f":{known['PORT']}")]
        if not plain or not all(port.startswith("127.0.0.1:") for port in plain):
            yield f"compose: {name}: PORT shows /metrics; publish it on 127.0.0.1 only"
        if seconds(one["stop_grace_period"]) < drain + 5:
            yield f"compose: {name}: stop_grace_period is too short for a drain of {drain} s"


def hardened(services):
    for name, one in services.items():
        if not one.get("read_only") or one.get("cap_drop") != ["ALL"] or "no-new-privileges:true" not in one.get("security_opt", []):
            yield f"compose: {name} could write to its root, or has capabilities"
        # The image of tandem has a user of its own.
        if not name.startswith("tandem") and not re.match(r"[1-9]\d*:[1-9]", one.get("user", "")):
            yield f"compose: {name} runs as root"
        check = " ".join(one.get("healthcheck", {}).get("test", []))
        if "pg_isready" in check and "-h " not in check:
            yield f"compose: {name}: pg_isready takes the temporary server of a first start for the real one"


def env_example(text, stack_text):
    """The example names what the stack asks for, without values."""
    given = dict(re.findall(r"^#?(\w+)=(.*)$", text, re.M))
    for name in set(re.findall(r"(?<!\$)\$\{(\w+)", stack_text)):
        if name not in given:
            yield f"deploy/compose.env.example: no {name}"
    for name, value in given.items():
        if re.search("PASSWORD|SECRET", name) and value:
            yield f"deploy/compose.env.example: {name} has a value"


def dockerfile(text, ignore, exists, cargo):
    stages, last = set(), []
    kept = {line[1:] for line in ignore.split() if line.startswith("!")}
    for line in re.sub(r"\\\n", " ", text).splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        if words[0] == "FROM":
            stages.add(words[-1])
            last = []
        last.append(words)
        if words[0] == "COPY" and not any(word.startswith("--from=") for word in words):
            for source in [word for word in words[1:-1] if not word.startswith("--")]:
                if not exists(source):
                    yield f"Dockerfile copies {source}, which isn't there"
                if source.split("/")[0] not in kept:
                    yield f"Dockerfile copies {source}, which .dockerignore leaves out"
    # The dependency layer is built on an empty program: what Cargo.toml names must be there already. Of a target with a path
    # of its own, cargo asks for the file only when it builds that target.
    for section in re.split(r"^(?=\[)", cargo, flags=re.M):
        named = re.match(r"\[\[(bin|test|bench|example)\]\]", section)
        if section.startswith("[package]"):
            named = re.search(r"^(build|workspace)\b", section, re.M)
        if named and (named[1] in ("bin", "build", "workspace") or not re.search(r"^path\s*=", section, re.M)):
            yield f"Dockerfile: Cargo.toml names a {named[1]}, and the dependency layer has none"
    # The members of the workspace belong into that layer.
    for member in re.findall(r'^members = \["([^"/]+)', cargo, re.M):
        if text.find(f"COPY {member} ") == -1 or text.find(f"COPY {member} ") > text.find("RUN mkdir src"):
            yield f"Dockerfile: the dependency layer lacks the workspace's {member}"
    words = {line[0]: line for line in last}
    user = words.get("USER", ["", "0"])[1]
    if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", user):
        yield f"Dockerfile: USER {user}, where Kubernetes needs a number that isn't 0"
    if "HEALTHCHECK" not in words or '["tandem", "health"]' not in text:
        yield "Dockerfile: no HEALTHCHECK by tandem health"
    known = facts.settings()
    for pair in words.get("ENV", [])[1:]:
        if pair.split("=")[0] not in known:
            yield f"Dockerfile: {pair.split('=')[0]} is no setting of tandem"
    exposed = set(words.get("EXPOSE", [])[1:])
    wanted = {f"{known['PORT']}/tcp", f"{known['QUIC_PORT']}/tcp", f"{known['QUIC_PORT']}/udp"}
    if exposed != wanted:
        yield f"Dockerfile exposes {sorted(exposed)}, not {sorted(wanted)}"
    rust = re.search(r'^rust-version = "([\d.]+)"', facts.read("Cargo.toml"), re.M)[1]
    if f"rust:{rust}-" not in text:
        yield f"Dockerfile builds with another Rust than {rust}"


def unit(text):
    known = facts.settings()
    lines = [line.split("=", 1) for line in text.splitlines() if "=" in line]
    for key, value in lines:
        if key.lstrip("#") == "Environment":
            for pair in value.split():
                if pair.split("=")[0] not in known:
                    yield f"tandem.service: {pair.split('=')[0]} is no setting of tandem"
    values = dict(lines)
    if seconds(values["TimeoutStopSec"]) < facts.drain_seconds() + 5:
        yield f"tandem.service: TimeoutStopSec={values['TimeoutStopSec']} is too short for a drain of {facts.drain_seconds()} s"


def kustomization(name, content):
    for field in DEPRECATED & set(content):
        yield f"{name}: {field} is deprecated"

"""Checks of one rendering. Each yields sentences about what is wrong."""

import re

import facts
from rendered import OUTSIDE, WORKLOADS, bytes_of, container, cores_of, matches, ports_of

VERSION = facts.version()


def title(thing):
    return f"{thing['kind']}/{thing['metadata']['name']}"


def namespaces(r):
    names = [thing["metadata"]["name"] for thing in r.all("Namespace")]
    if len(names) != 1:
        yield f"{len(names)} Namespaces"
    for thing in r.objects:
        if thing["kind"] not in ("Namespace",) and thing["metadata"].get("namespace") not in names:
            yield f"{title(thing)} is in namespace {thing['metadata'].get('namespace')}, not {names}"


def selectors(r):
    for workload in r.all("Deployment", "StatefulSet"):
        spec = workload["spec"]
        if not matches(spec["selector"], spec["template"]["metadata"]["labels"]):
            yield f"{title(workload)}: its selector is not its pods' labels"
    for service in r.all("Service"):
        if not r.selected({"matchLabels": service["spec"]["selector"]}):
            yield f"{title(service)} selects no pod"
    for thing in r.all("PodDisruptionBudget"):
        if not r.selected(thing["spec"]["selector"]):
            yield f"{title(thing)} selects no pod"
    for policy in r.all("NetworkPolicy"):
        if policy["spec"]["podSelector"] and not r.selected(policy["spec"]["podSelector"]):
            yield f"{title(policy)} selects no pod"
    for workload, labels, spec in r.pods():
        for rule in (spec.get("affinity", {}).get("podAntiAffinity", {}).get("preferredDuringSchedulingIgnoredDuringExecution", [])):
            if not matches(rule["podAffinityTerm"]["labelSelector"], labels):
                yield f"{title(workload)}: the anti-affinity is with others"
        for rule in spec.get("topologySpreadConstraints", []):
            if not matches(rule["labelSelector"], labels):
                yield f"{title(workload)}: the spread is over others"
    for thing in r.all("StatefulSet"):
        service = r.get("Service", thing["spec"]["serviceName"])
        if not service or service["spec"].get("clusterIP") != "None":
            yield f"{title(thing)}: no headless Service {thing['spec']['serviceName']}"
    for scaler in r.all("HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        if not r.get(target["kind"], target["name"]):
            yield f"{title(scaler)} scales nothing"


def ports(r):
    for service in r.all("Service"):
        for _, spec in r.selected({"matchLabels": service["spec"]["selector"]}):
            there = {(port["name"], port["protocol"]) for port in ports_of(spec)}
            for port in service["spec"]["ports"]:
                if (port["targetPort"], port.get("protocol", "TCP")) not in there:
                    yield f"{title(service)}: no pod listens on {port['targetPort']}/{port.get('protocol')}"
    for workload, _, spec in r.pods():
        numbers = [(port["containerPort"], port["protocol"]) for port in ports_of(spec)]
        if len(numbers) != len(set(numbers)):
            yield f"{title(workload)}: a port twice"
    settings, spec = r.settings(), r.tandem()
    by_name = {port["name"]: port["containerPort"] for port in ports_of(spec)}
    for name, setting in (("http", "PORT"), ("quic", "QUIC_PORT"), ("https", "QUIC_PORT")):
        if str(by_name.get(name)) != settings.get(setting):
            yield f"container port {name} is {by_name.get(name)}, {setting} is {settings.get(setting)}"
    public = [service for service in r.all("Service") if service["spec"].get("type") == "LoadBalancer"]
    offered = [(port["protocol"], port["port"]) for service in public for port in service["spec"]["ports"]]
    # Clients are told QUIC_PORT: another number outside would lead them nowhere.
    wanted = [(protocol, int(settings["QUIC_PORT"])) for protocol in ("TCP", "UDP")]
    if sorted(offered) != wanted:
        yield f"outside are {offered}, and clients are told {wanted}"
    for service in public:
        if service["spec"].get("externalTrafficPolicy") != "Local":
            yield f"{title(service)}: externalTrafficPolicy is not Local"
        if service["spec"].get("sessionAffinity") != "None":
            yield f"{title(service)}: sessionAffinity is on"
    yield from quic_listener(r, public)
    if wanted[0][1] < 1024:
        sysctls = {one["name"]: one["value"] for one in spec["securityContext"].get("sysctls", [])}
        if int(sysctls.get("net.ipv4.ip_unprivileged_port_start", 1024)) > wanted[0][1]:
            yield f"nobody but root may listen on {wanted[0][1]}"


def quic_listener(r, public):
    """AWS: the annotations of Service, pods and Namespace make sense only together, and only by names that are there."""
    at = "service.beta.kubernetes.io/aws-load-balancer-quic-enabled-"
    template = r.get("Deployment", "tandem")["spec"]["template"]
    named = template["metadata"].get("annotations", {}).get(at + "containers")
    injected = [thing for thing in r.all("Namespace") if thing["metadata"].get("labels", {}).get("elbv2.k8s.aws/quic-server-id-inject")]
    quic = [port for service in public for port in service["metadata"].get("annotations", {}).get(at + "ports", "").split(",") if port]
    if len({bool(named), bool(injected), bool(quic)}) > 1:
        yield f"AWS's QUIC listener: containers {named}, ports {quic}, {len(injected)} namespaces with ids"
    if named and named not in [one["name"] for one in template["spec"]["containers"]]:
        yield f"AWS's QUIC listener: no container {named} to get a server id"
    offered = [str(port["port"]) for service in public for port in service["spec"]["ports"] if port["protocol"] == "UDP"]
    if quic and quic != offered:
        yield f"AWS's QUIC listener: QUIC on {quic}, and the Service offers UDP on {offered}"


def policies(r):
    """Who may talk to whom, by the policies; and that what must talk, may."""
    everything = r.all("NetworkPolicy")
    if not any(not policy["spec"]["podSelector"] and len(policy["spec"]["policyTypes"]) == 2 and
               not policy["spec"].get("ingress") and not policy["spec"].get("egress") for policy in everything):
        yield "no policy that denies everything"
    for policy in everything:
        mine = r.selected(policy["spec"]["podSelector"])
        for rule in policy["spec"].get("ingress", []):
            for port in rule["ports"]:
                if not any((one["containerPort"], one["protocol"]) == (port["port"], port["protocol"]) for _, spec in mine for one in ports_of(spec)):
                    yield f"{title(policy)} lets {port['port']}/{port['protocol']} in, where nobody listens"
        for rule in policy["spec"].get("egress", []):
            for peer in rule.get("to", []):
                if "podSelector" not in peer:
                    continue
                theirs = r.selected(peer["podSelector"])
                if not theirs and "postgres" not in str(peer):
                    yield f"{title(policy)} lets out to nobody: {peer['podSelector']}"
                for port in rule["ports"]:
                    if theirs and not any((one["containerPort"], one["protocol"]) == (port["port"], port["protocol"]) for _, spec in theirs for one in ports_of(spec)):
                        yield f"{title(policy)} lets out to {port['port']}/{port['protocol']}, where nobody listens"

    def allowed(direction, of, other, port, protocol):
        for policy in everything:
            if not matches(policy["spec"]["podSelector"], of):
                continue
            for rule in policy["spec"].get(direction, []):
                peers = rule.get("from" if direction == "ingress" else "to")
                here = any((one["port"], one["protocol"]) == (port, protocol) for one in rule["ports"])
                if here and (peers is None or (other and any("podSelector" in peer and matches(peer["podSelector"], other) for peer in peers))):
                    return True
        return False

    tandem = {"app.kubernetes.io/name": "tandem"}
    for protocol in ("UDP", "TCP"):
        if not allowed("ingress", tandem, None, int(r.settings()["QUIC_PORT"]), protocol):
            yield f"the policies shut the public {protocol} port"
    for workload, labels, spec in r.pods():
        for port in ports_of(spec):
            if port["name"] in ("redis", "sentinel", "postgres", "postgresql"):
                for direction, of, other in (("egress", tandem, labels), ("ingress", labels, tandem)):
                    if not allowed(direction, of, other, port["containerPort"], "TCP"):
                        yield f"the policies keep tandem from {title(workload)} port {port['name']} ({direction})"
    if allowed("ingress", tandem, None, int(r.settings()["PORT"]), "TCP"):
        yield "the policies let everybody at PORT, where /metrics is"
    dns = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}
    if not any(dns in rule.get("to", []) for policy in everything if matches(policy["spec"]["podSelector"], tandem) for rule in policy["spec"].get("egress", [])):
        yield "the policies keep tandem from DNS"


def keys(r):
    known, limits = facts.settings(), facts.ranges()
    config, env = r.settings(), container(r.tandem(), "tandem").get("env", [])
    for name, value in config.items():
        if name not in known:
            yield f"ConfigMap: {name} is no setting of tandem"
        if name in limits and value and not limits[name][0] <= int(value) <= limits[name][1]:
            yield f"ConfigMap: {name}={value} is not within {limits[name]}"
        if re.search("PASSWORD|SECRET|_URL$", name) and value:
            yield f"ConfigMap: {name} belongs into a Secret"
    before, quoted = [], " ".join(one.get("value", "") for one in env)
    for one in env:
        name = one["name"]
        for other in re.findall(r"\$\((\w+)\)", one.get("value", "")):
            if other not in before:
                yield f"{name} quotes {other}, which is not set before it"
        if name not in known and f"$({name})" not in quoted:
            yield f"env: {name} is no setting of tandem"
        before.append(name)
    said = {name for name, value in config.items() if value} | set(before)
    for url, parts in (("REDIS_URL", "REDIS_"), ("DATABASE_URL", "POSTGRES_")):
        rest = {name for name in said if name.startswith(parts)} - {url, "POSTGRES_POOL_SIZE"} & set(known)
        rest &= set(known)
        if url in said and rest:
            yield f"{url} and {sorted(rest)}: say it in one way"
        if url not in said and f"{parts}HOST" not in said:
            yield f"neither {url} nor {parts}HOST"
    for setting, port in (("REDIS_HOST", 6379), ("POSTGRES_HOST", 5432)):
        if config.get(setting):
            service = r.get("Service", config[setting])
            if not service or port not in [one["port"] for one in service["spec"]["ports"]]:
                yield f"{setting}={config[setting]} is no Service with port {port}"
    node = [one for one in env if one["name"] == "NODE_ID"]
    if not node or node[0].get("valueFrom", {}).get("fieldRef", {}).get("fieldPath") != "metadata.name":
        yield "NODE_ID is not the pod's name"
    for host in re.findall(r"[@=]([a-z0-9-]+)\.([a-z0-9-]+):(\d+)", quoted):
        pod, service, port = host
        owner = r.get("StatefulSet", pod.rsplit("-", 1)[0])
        if not owner or owner["spec"]["serviceName"] != service or int(pod.rsplit("-", 1)[1]) >= owner["spec"]["replicas"]:
            yield f"{pod}.{service}:{port} is no pod here"


def references(r):
    def secret(workload, name, key=None):
        here = r.get("Secret", name)
        if here:
            if key and key not in {**here.get("data", {}), **here.get("stringData", {})}:
                yield f"{title(workload)}: Secret {name} has no {key}"
            return
        there, maker = OUTSIDE.get(name, (None, None))
        if there is None or (maker and not r.all(maker)):
            yield f"{title(workload)}: nobody makes Secret {name}"
        elif key and key not in there:
            yield f"{title(workload)}: Secret {name} has no {key}"

    for workload, _, spec in r.pods():
        volumes = {one["name"]: one for one in spec.get("volumes", [])}
        claims = {one["metadata"]["name"] for one in workload["spec"].get("volumeClaimTemplates", [])}
        for one in spec["containers"]:
            for mount in one.get("volumeMounts", []):
                if mount["name"] not in volumes and mount["name"] not in claims:
                    yield f"{title(workload)}: no volume {mount['name']}"
            for source in one.get("envFrom", []):
                if not r.get("ConfigMap", source["configMapRef"]["name"]):
                    yield f"{title(workload)}: no ConfigMap {source['configMapRef']['name']}"
            for variable in one.get("env", []):
                ref = variable.get("valueFrom", {}).get("secretKeyRef")
                if ref:
                    yield from secret(workload, ref["name"], ref["key"])
        for volume in volumes.values():
            if "configMap" in volume and not r.get("ConfigMap", volume["configMap"]["name"]):
                yield f"{title(workload)}: no ConfigMap {volume['configMap']['name']}"
            if "secret" in volume:
                yield from secret(workload, volume["secret"]["secretName"])
        account = spec.get("serviceAccountName")
        if account and not r.get("ServiceAccount", account):
            yield f"{title(workload)}: no ServiceAccount {account}"
    if not r.settings():
        return
    mounted = {mount["mountPath"] for mount in container(r.tandem(), "tandem")["volumeMounts"]}
    for setting in ("TLS_CERT_PATH", "TLS_KEY_PATH", "DATA_DIR", "CERTS_DIR"):
        value = r.settings().get(setting)
        if value and not any(value == path or value.startswith(path + "/") for path in mounted):
            yield f"{setting}={value} is on no volume"
    if not r.settings().get("TLS_CERT_PATH") and r.replicas() > 2:
        yield "several nodes, each with a self-signed certificate of its own: WebTransport fails between them"
    for thing in r.all("Secret"):
        filled = [key for key, value in {**thing.get("data", {}), **thing.get("stringData", {})}.items() if value]
        if filled:
            yield f"{title(thing)} has values in the repository: {filled}"
    for certificate in r.all("Certificate"):
        secrets = [volume["secret"]["secretName"] for volume in r.tandem().get("volumes", []) if "secret" in volume]
        if certificate["spec"]["secretName"] not in secrets:
            yield f"{title(certificate)} makes a Secret that nobody mounts"


def pods(r):
    drain = facts.drain_seconds()
    for workload, _, spec in r.pods():
        if workload["kind"] not in WORKLOADS:
            continue
        whole = spec.get("securityContext", {})
        if not whole.get("runAsNonRoot") or whole.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{title(workload)}: not as the restricted profile wants it"
        if spec.get("automountServiceAccountToken") is not False:
            yield f"{title(workload)} gets a token of the cluster's API"
        if spec.get("enableServiceLinks") is not False:
            yield f"{title(workload)}: service links set variables like REDIS_PORT=tcp://…"
        for one in spec["containers"]:
            own, name = one.get("securityContext", {}), f"{title(workload)} {one['name']}"
            if own.get("allowPrivilegeEscalation") is not False or own.get("capabilities") != {"drop": ["ALL"]}:
                yield f"{name}: not as the restricted profile wants it"
            if own.get("readOnlyRootFilesystem") is not True:
                yield f"{name}: its root file system can be written"
            for amount in ("requests", "limits"):
                if set(one.get("resources", {}).get(amount, {})) != {"cpu", "memory"}:
                    yield f"{name}: no {amount}"
            tag = one["image"].rpartition(":")[2] if ":" in one["image"] else ""
            if not re.match(r"\d+(\.\d+)*", tag):
                yield f"{name}: the image has no version: {one['image']}"
            if one["name"] == "tandem" and tag != VERSION:
                yield f"{name}: image {tag}, and Cargo.toml says {VERSION}"
            if workload["kind"] == "Job":
                continue
            names = {port["name"] for port in one.get("ports", [])}
            for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                probe = one.get(kind)
                if not probe:
                    yield f"{name}: no {kind}"
                elif "httpGet" in probe:
                    if probe["httpGet"]["path"] not in facts.routes():
                        yield f"{name}: {kind} asks {probe['httpGet']['path']}, which is no route"
                    if probe["httpGet"]["port"] not in names:
                        yield f"{name}: {kind} asks at {probe['httpGet']['port']}, where nobody listens"
            if one["name"] == "tandem":
                before = one["lifecycle"]["preStop"]["sleep"]["seconds"]
                if spec["terminationGracePeriodSeconds"] < before + drain + 5:
                    yield f"{name}: {spec['terminationGracePeriodSeconds']} s are too few for {before} s and a drain of {drain} s"
                for kind, path in (("startupProbe", "/ready"), ("livenessProbe", "/health"), ("readinessProbe", "/health")):
                    if one.get(kind, {}).get("httpGet", {}).get("path") != path:
                        yield f"{name}: the {kind} asks {path}: an outage of the stores must end no pod and no session"
    update = r.get("Deployment", "tandem")["spec"]["strategy"]["rollingUpdate"]
    if update != {"maxSurge": 1, "maxUnavailable": 0}:
        yield f"a rolling update with {update}"


def arithmetic(r):
    most, config = r.replicas(), r.settings()
    scaler, deployment = r.get("HorizontalPodAutoscaler", "tandem"), r.get("Deployment", "tandem")
    if scaler:
        spec = scaler["spec"]
        if not spec["minReplicas"] <= deployment["spec"]["replicas"] <= spec["maxReplicas"]:
            yield "replicas are outside what the autoscaler may do"
        for metric in spec["metrics"]:
            if metric["type"] == "Pods":
                if metric["pods"]["metric"]["name"] not in facts.metrics():
                    yield f"the autoscaler asks for {metric['pods']['metric']['name']}, which is no metric of tandem"
                if int(metric["pods"]["target"]["averageValue"]) >= 0.85 * int(config["MAX_SESSIONS"]):
                    yield "the autoscaler waits until nodes are full"
    total = {"pods": 0, "requests.cpu": 0, "requests.memory": 0, "limits.cpu": 0, "limits.memory": 0, "persistentvolumeclaims": 0, "requests.storage": 0}
    for workload, _, spec in r.pods():
        count = most if workload is deployment else workload["spec"].get("replicas", workload["spec"].get("instances", 1))
        total["pods"] += count
        amounts = [one["resources"] for one in spec["containers"] if "resources" in one] or [workload["spec"]["resources"]]
        for amount in amounts:
            for which in ("requests", "limits"):
                total[f"{which}.cpu"] += count * cores_of(amount.get(which, {}).get("cpu", 0))
                total[f"{which}.memory"] += count * bytes_of(amount.get(which, {}).get("memory", 0))
        sizes = [claim["spec"]["resources"]["requests"]["storage"] for claim in workload["spec"].get("volumeClaimTemplates", [])]
        sizes += [workload["spec"]["storage"]["size"]] if "storage" in workload["spec"] else []
        total["persistentvolumeclaims"] += count * len(sizes)
        total["requests.storage"] += count * sum(map(bytes_of, sizes))
    total["services.loadbalancers"] = sum(service["spec"].get("type") == "LoadBalancer" for service in r.all("Service"))
    for quota in r.all("ResourceQuota"):
        for name, most_allowed in quota["spec"]["hard"].items():
            read = cores_of if name.endswith("cpu") else bytes_of
            if total.get(name, 0) > read(most_allowed):
                yield f"quota {name}={most_allowed} is less than what may run: {total[name]:g}"
    server = r.get("StatefulSet", "tandem-postgres")
    text = " ".join(server["spec"]["template"]["spec"]["containers"][0]["args"]) if server else str(r.all("Cluster"))
    connections = int(re.search(r"max_connections(?:=|': ')(\d+)", text)[1])
    if most * int(config["POSTGRES_POOL_SIZE"]) + 13 > connections:
        yield f"{most} pods with {config['POSTGRES_POOL_SIZE']} connections each, and PostgreSQL takes {connections}"


def edges(r):
    paths = facts.routes()
    for ingress in r.all("Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                service = r.get("Service", backend["name"])
                if not service or backend["port"]["name"] not in [port["name"] for port in service["spec"]["ports"]]:
                    yield f"{title(ingress)}: {path['path']} leads nowhere"
                for hidden in ("/metrics", "/status"):
                    root = path["path"].rstrip("/")
                    if path["path"] == hidden or (path["pathType"] != "Exact" and (root == "" or hidden.startswith(root + "/") or hidden == root)):
                        yield f"{title(ingress)}: {path['path']} shows {hidden} to everybody"
        if not r.settings().get("TRUSTED_PROXIES"):
            yield f"{title(ingress)}: without TRUSTED_PROXIES all clients share the ingress's address"
    for monitor in r.all("ServiceMonitor"):
        services = [one for one in r.all("Service") if matches(monitor["spec"]["selector"], one["metadata"]["labels"])]
        for endpoint in monitor["spec"]["endpoints"]:
            if len(services) != 1 or endpoint["port"] not in [port["name"] for port in services[0]["spec"]["ports"]]:
                yield f"{title(monitor)} finds no Service with port {endpoint['port']}"
            if endpoint["path"] not in paths:
                yield f"{title(monitor)} asks {endpoint['path']}, which is no route"


CHECKS = (namespaces, selectors, ports, policies, keys, references, pods, arithmetic, edges)


def check(rendered):
    if not rendered.settings():
        # Nothing else can be asked then.
        return [f"{rendered.name}: {problem}" for problem in references(rendered)]
    return [f"{rendered.name}: {problem}" for one in CHECKS for problem in one(rendered)]

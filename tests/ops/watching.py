"""Alerts and dashboards use names that exist, and every alert has its runbook."""

import json
import re

import facts

SUFFIXES = ("_bucket", "_sum", "_count")
FOREIGN = {"up"}
# Labels that the scrape adds.
ADDED = {"pod", "namespace", "job", "instance", "le"}
WORDS = set("""sum rate increase by absent histogram_quantile and or unless for max min avg without on ignoring label_values
    ok le bool offset count""".split())


def expression(text):
    """What is wrong with the names and labels of a PromQL expression."""
    catalogue = facts.metrics()
    bare = re.sub(r'"(\\.|[^"\\])*"', '""', text)
    named = set(re.findall(r"\btandem_\w+|\bup\b", bare))
    if not named:
        yield f"no metric in {text.strip()!r}"
    for name in named:
        base = next((name[:-len(suffix)] for suffix in SUFFIXES if name.endswith(suffix) and name[:-len(suffix)] in catalogue), name)
        if name in FOREIGN:
            continue
        if base not in catalogue:
            yield f"{name} is no metric of tandem"
        elif (base != name) != (catalogue[base][0] == "Histogram"):
            yield f"{name}: {base} is a {catalogue[base][0]}"
    for name, inside in re.findall(r"\b(tandem_\w+|up)\{([^}]*)\}", bare):
        base = re.sub("(_bucket|_sum|_count)$", "", name) if name not in catalogue else name
        have = set(catalogue.get(base, (None, []))[1]) | ADDED
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", inside):
            if label not in have:
                yield f"{name} has no label {label}"
    allowed = ADDED | {label for name in named for label in catalogue.get(re.sub("_bucket$", "", name), (None, []))[1]}
    for group in re.findall(r"\bby\s*\(([^)]*)\)", bare):
        for label in re.split(r"[,\s]+", group.strip()):
            if label not in allowed:
                yield f"by ({label}): none of {sorted(named)} has that label"
    for name in re.findall(r"(?:rate|increase)\s*\(\s*(tandem_\w+)", bare):
        if catalogue.get(name, ("Counter",))[0] == "Gauge":
            yield f"the rate of a gauge: {name}"


def rules(r, runbooks):
    for thing in r.all("PrometheusRule"):
        for group in thing["spec"]["groups"]:
            for rule in group["rules"]:
                name = rule["alert"]
                for problem in expression(rule["expr"]):
                    yield f"{r.name}: alert {name}: {problem}"
                if rule.get("labels", {}).get("severity") not in ("page", "ticket") or not rule["annotations"].get("summary"):
                    yield f"{r.name}: alert {name}: severity (page or ticket) and summary are needed"
                if not rule["annotations"].get("runbook_url", "").endswith(f"/OPERATIONS.md#{name.lower()}"):
                    yield f"{r.name}: alert {name}: its runbook_url doesn't lead to its section"
                if not re.search(rf"^### {name}$", runbooks, re.M):
                    yield f"{r.name}: alert {name} has no section in docs/OPERATIONS.md"
                if name == "TandemNearlyFull":
                    number = int(re.search(r"> (\d+)", rule["expr"])[1])
                    if number != int(r.settings()["MAX_SESSIONS"]) * 85 // 100:
                        yield f"{r.name}: alert {name}: {number} is not 85 % of MAX_SESSIONS"


def dashboards(r):
    for thing in r.all("ConfigMap"):
        if "grafana_dashboard" not in thing["metadata"].get("labels", {}):
            continue
        for file, text in thing["data"].items():
            board = json.loads(text)
            ids = [panel["id"] for panel in board["panels"]]
            if len(ids) != len(set(ids)):
                yield f"{r.name}: {file}: a panel's id twice"
            queries = [(panel["title"], target["expr"]) for panel in board["panels"] for target in panel.get("targets", [])]
            queries += [(one["name"], one["query"]["query"]) for one in board["templating"]["list"] if one["type"] == "query"]
            for where, query in queries:
                for problem in expression(query.replace("$__rate_interval", "5m")):
                    yield f"{r.name}: {file}: {where}: {problem}"


def unshown(r):
    """Metrics that no panel shows, where there is a dashboard."""
    boards = "".join(str(thing.get("data")) for thing in r.all("ConfigMap") if "grafana_dashboard" in thing["metadata"].get("labels", {}))
    return [name for name in facts.metrics() if boards and not re.search(rf"\b{name}(_bucket)?\b", boards)]


def check(r, runbooks):
    return [*rules(r, runbooks), *dashboards(r), *(f"{r.name}: no panel shows {name}" for name in unshown(r))]

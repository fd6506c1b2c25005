"""What the code says of itself: settings, metrics, routes, drain time. Read from the sources, so that no list is kept twice."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def read(path):
    return (ROOT / path).read_text()


def settings():
    """Every setting: name → default."""
    return dict(re.findall(r"^#?([A-Z][A-Z0-9_]*)=(.*)$", read(".env.example"), re.M))


def ranges():
    """Settings with a range: name → (least, most)."""
    table = re.findall(r'"([A-Z_]+)" = [0-9_]+, ([0-9_]+)\.\.=([0-9_]+)', read("src/domain/limits.rs"))
    return {name: (int(least.replace("_", "")), int(most.replace("_", ""))) for name, least, most in table}


def metrics():
    """The catalogue: name → (kind, labels)."""
    rows = re.findall(r'= "(tandem_\w+)", (\w+), \w+, \[([^]]*)\]', read("src/telemetry/catalogue.rs"))
    return {name: (kind, re.findall(r'"(\w+)"', labels)) for name, kind, labels in rows}


def routes():
    return set(re.findall(r'\.route\("([^"]+)"', read("src/http/router.rs")))


def drain_seconds():
    """The longest planned stop: the farewell, every bounded wait of the composition root, the last traces."""
    source = "".join(path.read_text() for path in sorted((ROOT / "src").glob("app*/**/*.rs")) + sorted((ROOT / "src").glob("app.rs")))
    farewell = int(re.search(r"FAREWELL: Duration = Duration::from_millis\((\d+)\)", source)[1])
    waits = 0
    for name in ("DRAIN", "SETTLE"):
        seconds = int(re.search(rf"const {name}: Duration = Duration::from_secs\((\d+)\)", source)[1])
        waits += seconds * len(re.findall(rf"timeout\({name},", source))
    flush = int(re.search(r"FLUSH: Duration = Duration::from_millis\((\d+)\)", read("src/telemetry/otlp.rs"))[1])
    return (farewell + flush) / 1000 + waits


def version():
    return re.search(r'^version = "([^"]+)"', read("Cargo.toml"), re.M)[1]

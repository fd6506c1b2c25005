#!/usr/bin/env python3
"""Draws docs/architecture.svg: `scripts/architecture.py > docs/architecture.svg`.

`tests/house_style.rs` holds the picture to the modules that there are: each box of kind `module` or `crate` exists, and
each module of src/lib.rs and each crate is a box."""

from html import escape

WIDTH, HEIGHT = 940, 690
# name: (x, y, width, kind, caption)
BOXES = {
    "browsers": (40, 20, 860, "outside", "browsers and tools: WebTransport · WebSocket · HTTP"),
    "tandem-quic": (40, 100, 210, "crate", "QUIC driver over quinn-proto"),
    "tandem-webtransport": (270, 100, 210, "crate", "sessions over h3"),
    "tandem-wake": (500, 100, 125, "crate", "wakers of a task"),
    "http": (700, 160, 200, "module", "router, health, short links"),
    "transport": (40, 180, 620, "module", "WebSocket, TCP, TLS; adapters of the crates: bytes ↔ frames"),
    "protocol": (40, 260, 220, "module", "frames ↔ domain types"),
    "session": (280, 260, 380, "module", "one loop a connection: rates, outbox"),
    "hub": (40, 340, 400, "module", "replicas, committer, timers, ephemeral lane"),
    "room": (460, 340, 200, "module", "pure: decide, apply"),
    "quota": (700, 260, 200, "module", "what clients may use up"),
    "cluster": (700, 340, 200, "module", "leases, watch of nodes"),
    "log": (40, 420, 400, "module", "sequencer: compare-and-set; memory, Redis"),
    "commit": (460, 420, 200, "module", "commit, snapshot, rows"),
    "redis": (700, 420, 200, "module", "connection, keys, Lua"),
    "repository": (40, 500, 620, "module", "rooms, users, events: SQLite, PostgreSQL"),
    "stores": (700, 500, 200, "outside", "Redis · PostgreSQL · SQLite"),
    "domain": (40, 600, 130, "module", "ids, limits"),
    "clock": (185, 600, 100, "module", "room time"),
    "config": (300, 600, 110, "module", "settings"),
    "telemetry": (425, 600, 120, "module", "logs, metrics"),
    "panics": (560, 600, 100, "module", "containment"),
    "vital": (675, 600, 85, "module", "listeners"),
    "authorities": (775, 600, 125, "module", "trusted PEMs"),
    "app": (700, 20 + 80, 200, "module", "composition root"),
}
# The road of a command, top to bottom; its events come back the same way.
ROAD = [
    ("browsers", "tandem-quic"), ("tandem-webtransport", "transport"), ("transport", "session"), ("session", "hub"),
    ("hub", "log"), ("log", "repository"), ("cluster", "redis"),
]
ACROSS = [
    ("tandem-quic", "tandem-webtransport"), ("protocol", "session"), ("hub", "room"), ("log", "commit"),
]
# WebSocket and TCP pass the crates by.
BESIDE = '<path class="road" d="M642 72V180"/>'
HIGH = 52
COLOURS = {"module": "#3b7ddd", "crate": "#2a9d63", "outside": "#8a94a0"}


def middle(name):
    x, y, width, *_ = BOXES[name]
    return x + width / 2, y


def box(name):
    x, y, width, kind, caption = BOXES[name]
    colour = COLOURS[kind]
    dash = ' stroke-dasharray="5 4"' if kind == "outside" else ""
    title = "" if kind == "outside" else f'<text class="name" x="{x + 12}" y="{y + 22}">{name}</text>'
    at = y + (31 if kind == "outside" else 41)
    return (
        f'<g data-{kind}="{name}"><rect x="{x}" y="{y}" width="{width}" height="{HIGH}" rx="6" fill="{colour}18" '
        f'stroke="{colour}"{dash}/>{title}<text x="{x + 12}" y="{at}">{escape(caption)}</text></g>'
    )


def down(upper, lower):
    (ux, uy), (lx, ly) = middle(upper), middle(lower)
    left = max(BOXES[upper][0], BOXES[lower][0])
    right = min(BOXES[upper][0] + BOXES[upper][2], BOXES[lower][0] + BOXES[lower][2])
    x = (left + right) / 2
    return f'<path class="road" d="M{x} {uy + HIGH}V{ly}"/>'


def across(left, right):
    x, y, width, *_ = BOXES[left]
    return f'<path class="road" d="M{x + width} {y + HIGH / 2}H{BOXES[right][0]}"/>'


def main():
    title = "The modules of tandem, and the road of a command"
    style = (
        "text{font:13px system-ui,sans-serif;fill:#6b7785}.name{font-weight:600;font-size:15px;fill:#3f6fb5}"
        ".road{fill:none;stroke:#e07b22;stroke-width:2;marker-start:url(#a);marker-end:url(#a)}"
    )
    print(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img">\n<title>{title}</title>\n<style>{style}</style>'
    )
    print(
        '<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" '
        'orient="auto-start-reverse"><path d="M0 0L8 4L0 8z" fill="#e07b22"/></marker></defs>'
    )
    for name in BOXES:
        print(box(name))
    for upper, lower in ROAD:
        print(down(upper, lower))
    for left, right in ACROSS:
        print(across(left, right))
    print(BESIDE)
    print('<text x="40" y="590">ground floor and services:</text>')
    print('<text x="40" y="676">orange: a command goes down, its events come back up · green: crates of their own</text>')
    print("</svg>")


main()

"""The server as manifests, health checks, Prometheus and systemd meet it: live.py <binary> <promtool> <environments.json>."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Member:
    """A WebSocket client, as small as it can be: enters a room and listens."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.socket.sendall(b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        join = b'{"type":"JOIN","protocol":3,"roomId":"ops","userId":"ops"}'
        assert len(join) < 126
        # Masked with zeros: the server wants a mask, not a secret.
        self.socket.sendall(bytes([0x81, 0x80 | len(join), 0, 0, 0, 0]) + join)
        self.heard = b""
        while b"ROOM_STATE" not in self.heard:
            assert self.listen(), f"the JOIN was not answered: {self.heard[-200:]}"

    def listen(self):
        more = self.socket.recv(65536)
        self.heard += more
        return more


def configured(binary, environments):
    """What the manifests say is a configuration that the server accepts."""
    for name, env in environments.items():
        done = subprocess.run([binary, "check-config"], env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{name}: {done.stderr}"
        assert "secret" not in done.stdout, f"{name}: a secret is shown"
    wrong = dict(env, REDIS_HOST="redis", REDIS_URL="redis://redis")
    assert subprocess.run([binary, "check-config"], env=wrong, capture_output=True).returncode == 1, "check-config sees nothing"
    print(f"{len(environments)} configurations accepted")


def main(binary, promtool, environments):
    if os.path.exists(environments):
        with open(environments) as file:
            configured(binary, json.load(file))
    port = free_port()
    with tempfile.TemporaryDirectory() as data:
        env = dict(PATH=os.environ["PATH"], PORT=str(port), QUIC_PORT="0", DATA_DIR=data, CERTS_DIR=data, LOG_LEVEL="warn")
        health = lambda: subprocess.run([binary, "health"], env=env, capture_output=True).returncode
        assert health() == 1, "tandem health says that nobody is well"
        server = subprocess.Popen([binary], env=env, stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 20
            while health() != 0:
                assert server.poll() is None and time.monotonic() < deadline, "the server doesn't come up"
                time.sleep(0.1)
            get = lambda path: urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).read()
            assert b'"ready":true' in get("/ready"), "not ready"
            lint = subprocess.run([promtool, "check", "metrics"], input=get("/metrics"), capture_output=True)
            assert lint.returncode == 0, lint.stderr.decode()
            bad = subprocess.run([promtool, "check", "metrics"], input=b"# TYPE a counter\na 1\n", capture_output=True)
            assert bad.returncode != 0, "promtool sees nothing"
            member = Member(port)
            began = time.monotonic()
            server.send_signal(signal.SIGTERM)
            while member.listen():
                pass
            assert b'"RECONNECT"' in member.heard, "a member was not told to come back"
            # The last frame is a close with GOING_AWAY.
            assert (1001).to_bytes(2, "big") in member.heard[-64:], member.heard[-64:]
            code = server.wait(30)
            assert code == 0, f"SIGTERM ended in {code}"
            print(f"drained in {time.monotonic() - began:.2f} s")
        finally:
            server.kill()


main(*sys.argv[1:])

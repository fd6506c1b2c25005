"""The server as its health check, Prometheus and systemd meet it: live.py <binary> <promtool>."""

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


def main(binary, promtool):
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
            began = time.monotonic()
            server.send_signal(signal.SIGTERM)
            code = server.wait(30)
            assert code == 0, f"SIGTERM ended in {code}"
            print(f"drained in {time.monotonic() - began:.2f} s")
        finally:
            server.kill()


main(*sys.argv[1:])

#!/usr/bin/env bash
# Makes the Secret tandem-secrets with random passwords and keys, unless it is there: ./secret.sh [namespace]
# ./secret.sh --print [namespace] writes the manifest to standard output instead, to be sealed or encrypted.
set -euo pipefail

print=
if [ "${1:-}" = --print ]; then
    print=1
    shift
fi
namespace=${1:-tandem}

# Letters and digits only: they stand in URLs too. 48 of them, which is enough for QUIC_SHARED_SECRET.
random() { od -An -tx1 -N24 /dev/urandom | tr -d ' \n'; }

manifest() {
    cat <<YAML
apiVersion: v1
kind: Secret
metadata:
  name: tandem-secrets
  namespace: $namespace
type: Opaque
stringData:
  POSTGRES_PASSWORD: "$(random)"
  REDIS_PASSWORD: "$(random)"
  QUIC_SHARED_SECRET: "$(random)"
YAML
}

if [ -n "$print" ]; then
    manifest
elif kubectl --namespace "$namespace" get secret tandem-secrets >/dev/null 2>&1; then
    echo "tandem-secrets is there already; nothing was changed"
else
    # create, not apply: that would keep the values in an annotation.
    manifest | kubectl create -f -
fi

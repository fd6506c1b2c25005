#!/bin/sh
# A Redis of the cluster. Pods change their addresses and the cluster knows its own by address: so each one, once started,
# introduces itself to the others by their names (CLUSTER MEET). A known one only gets a new address.
set -eu
: "${REDIS_PASSWORD:?the Secret tandem-secrets has no REDIS_PASSWORD}"
introduce() {
    export REDISCLI_AUTH="$REDIS_PASSWORD"
    until redis-cli ping | grep -q PONG; do sleep 1; done
    # An empty node waits for create.sh: meeting others doesn't make a cluster of it.
    redis-cli cluster info | grep -q '^cluster_known_nodes:1.$' && return
    for round in 1 2 3 4 5 6; do
        for number in 0 1 2 3 4 5; do
            address=$(getent hosts "tandem-redis-$number.tandem-redis" | cut -d ' ' -f 1) || continue
            [ "$address" = "$POD_IP" ] || redis-cli cluster meet "$address" 6379 >/dev/null || true
        done
        sleep $((round * 5))
    done
}
introduce &
exec redis-server /etc/redis/redis.conf - <<CONF
requirepass "$REDIS_PASSWORD"
masterauth "$REDIS_PASSWORD"
cluster-enabled yes
cluster-config-file /data/nodes.conf
cluster-node-timeout 5000
cluster-announce-ip $POD_IP
cluster-require-full-coverage no
CONF

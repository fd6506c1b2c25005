#!/bin/sh
# Creates the cluster; does nothing if it exists.
set -eu
export REDISCLI_AUTH="$REDIS_PASSWORD"
places=
for number in 0 1 2 3 4 5; do
    name="tandem-redis-$number.tandem-redis"
    until redis-cli -h "$name" ping 2>/dev/null | grep -q PONG; do sleep 2; done
    places="$places $(getent hosts "$name" | cut -d ' ' -f 1):6379"
done
if redis-cli -h tandem-redis-0.tandem-redis cluster info | grep -q '^cluster_state:ok'; then
    echo "the cluster is there"
    exit 0
fi
# shellcheck disable=SC2086 # a list of words
exec redis-cli --cluster create $places --cluster-replicas 1 --cluster-yes

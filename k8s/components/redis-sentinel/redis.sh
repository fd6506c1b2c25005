#!/bin/sh
# Starts a Redis as leader or follower, as the Sentinels say. They always have an answer: at first, that number 0 leads.
set -eu
: "${REDIS_PASSWORD:?the Secret tandem-secrets has no REDIS_PASSWORD}"
me="$POD.tandem-redis"
leader=
while [ -z "$leader" ]; do
    for number in 0 1 2; do
        leader=$(REDISCLI_AUTH="$REDIS_PASSWORD" timeout 3 redis-cli -h "tandem-redis-$number.tandem-redis" -p 26379 \
            sentinel get-master-addr-by-name tandem 2>/dev/null | head -n 1) || leader=
        case "$leader" in tandem-redis-*) break ;; *) leader= ;; esac
    done
    [ -n "$leader" ] || sleep 1
done
follow=
[ "$leader" = "$me" ] || follow="replicaof $leader 6379"
echo "$me starts, $leader leads"
# An isolated leader must not take commits that the next one would not have.
exec redis-server /etc/redis/redis.conf - <<CONF
requirepass "$REDIS_PASSWORD"
masterauth "$REDIS_PASSWORD"
replica-announce-ip $me
min-replicas-to-write 1
min-replicas-max-lag 10
$follow
CONF

#!/bin/sh
# A Sentinel's state is kept on the volume, so that a restart of all of them finds the last leader again.
set -eu
: "${REDIS_PASSWORD:?the Secret tandem-secrets has no REDIS_PASSWORD}"
conf=/data/sentinel.conf
if [ ! -s "$conf" ]; then
    umask 077
    cat >"$conf.new" <<CONF
port 26379
dir /data
sentinel resolve-hostnames yes
sentinel announce-hostnames yes
sentinel announce-ip $POD.tandem-redis
sentinel announce-port 26379
sentinel monitor tandem tandem-redis-0.tandem-redis 6379 2
sentinel auth-pass tandem $REDIS_PASSWORD
sentinel sentinel-pass $REDIS_PASSWORD
sentinel down-after-milliseconds tandem 5000
sentinel failover-timeout tandem 30000
sentinel parallel-syncs tandem 1
requirepass $REDIS_PASSWORD
CONF
    mv "$conf.new" "$conf"
fi
exec redis-server "$conf" --sentinel

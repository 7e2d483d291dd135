#!/bin/sh
# Formats Kafka's storage at the first start, then becomes Kafka. The image's own start-up writes into its root file system,
# which is read-only here.
set -eu
home=${KAFKA_HOME:-/opt/kafka}
config=${1:?usage: start.sh server.properties}
data=$(sed -n 's/^log\.dirs=//p' "$config")
if ! [ -f "$data/meta.properties" ]; then
    "$home/bin/kafka-storage.sh" format --cluster-id "$("$home/bin/kafka-storage.sh" random-uuid)" --config "$config"
fi
exec "$home/bin/kafka-server-start.sh" "$config"

#!/bin/sh
# First start: a cluster with the password of POSTGRES_PASSWORD, and what lies in initdb.d is run.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    cluster=$PGDATA
    # It gets its name when all is made: a start that was cut off is made anew.
    export PGDATA="$cluster.unfinished"
    rm -rf "$PGDATA"
    secret=$(mktemp)
    printf '%s' "$POSTGRES_PASSWORD" > "$secret"
    initdb --username "$POSTGRES_USER" --pwfile "$secret" --auth-host scram-sha-256 --auth-local trust \
        --encoding UTF8 --locale C.UTF-8 > /dev/null
    rm "$secret"
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    # Nobody from outside before all is made.
    pg_ctl start --wait --silent --options "-c listen_addresses=''"
    for script in /docker-entrypoint-initdb.d/*.sh; do
        [ ! -e "$script" ] || sh "$script"
    done
    pg_ctl stop --wait --silent
    mv "$PGDATA" "$cluster"
    export PGDATA="$cluster"
fi
exec postgres -c listen_addresses='*'

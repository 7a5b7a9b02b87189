#!/bin/sh
# Starts PostgreSQL in the foreground; at the first start it makes the cluster, the user and the database `starling` before anybody can connect.
set -eu
data=/var/lib/postgresql/starling/data
if [ ! -s "$data/PG_VERSION" ]; then
  rm -rf "$data.new"
  initdb --pgdata "$data.new" --username postgres --auth-local peer --auth-host scram-sha-256 --encoding UTF8 --locale C >/dev/null
  echo 'host all all 0.0.0.0/0 scram-sha-256' >>"$data.new/pg_hba.conf"
  printf "CREATE ROLE starling LOGIN PASSWORD '%s';\n" "$POSTGRES_PASSWORD" | postgres --single -D "$data.new" postgres >/dev/null
  echo 'CREATE DATABASE starling OWNER starling;' | postgres --single -D "$data.new" postgres >/dev/null
  mv "$data.new" "$data"
fi
exec postgres -D "$data" -c listen_addresses='*' -c max_connections=100 -c unix_socket_directories=/tmp

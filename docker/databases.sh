#!/bin/sh
# What the image of PostgreSQL runs when it is first started: the databases, and whose they are.
set -eu
psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres <<'SQL'
-- Not by an argument, which every process of the machine may read. psql has it since 15.
\getenv password NIGHTSHIFT_PASSWORD
CREATE ROLE nightshift_owner NOLOGIN;
CREATE ROLE nightshift_reader NOLOGIN;
CREATE ROLE nightshift LOGIN PASSWORD :'password' IN ROLE nightshift_owner;
CREATE DATABASE airflow OWNER nightshift;
CREATE DATABASE mlflow OWNER nightshift;
CREATE DATABASE warehouse;
GRANT CONNECT, CREATE ON DATABASE warehouse TO nightshift;
SQL

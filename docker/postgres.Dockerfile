# PostgreSQL from Debian, for who can reach no registry of images: it takes of the official image's
# settings those that compose.yaml uses. Its folder is the context: docker build -f docker/postgres.Dockerfile docker
ARG BASE=debian:bookworm-slim
FROM ${BASE}
RUN apt-get update -q \
    && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends postgresql \
    && rm -rf /var/lib/apt/lists/* /var/lib/postgresql/*/main \
    && ln -s /usr/lib/postgresql/*/bin/* /usr/local/bin/ -f \
    && install -d -m 0700 -o postgres -g postgres /var/lib/postgresql/data
COPY postgres-entrypoint.sh /usr/local/bin/entrypoint
# It has the mode of the checkout, which somebody's umask may have closed to others.
RUN chmod 0755 /usr/local/bin/entrypoint
ENV PGDATA=/var/lib/postgresql/data/cluster
USER postgres
VOLUME /var/lib/postgresql/data
EXPOSE 5432
ENTRYPOINT ["/usr/local/bin/entrypoint"]

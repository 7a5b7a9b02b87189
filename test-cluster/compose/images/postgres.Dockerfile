# PostgreSQL as Debian has it, in the place of FoundationDB. Makes its database at the first start; POSTGRES_PASSWORD is that of the user starling.
ARG BASE
FROM ${BASE}
RUN apt-get update && apt-get install -y --no-install-recommends postgresql-15 && rm -rf /var/lib/apt/lists/* \
 && install -d -o postgres -g postgres -m 0700 /var/lib/postgresql/starling
COPY --chown=root:root postgres.sh /usr/local/bin/starling-postgres
RUN chmod 0755 /usr/local/bin/starling-postgres
USER postgres
ENV PATH=/usr/lib/postgresql/15/bin:/usr/local/bin:/usr/bin:/bin
VOLUME /var/lib/postgresql/starling
# Fast shutdown: SIGTERM would wait for all clients.
STOPSIGNAL SIGINT
CMD ["/usr/local/bin/starling-postgres"]

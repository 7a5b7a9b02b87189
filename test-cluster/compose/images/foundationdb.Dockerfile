# Stands for the official image of FoundationDB, with binaries of one's own: servers, command line, and the client library that Starling's image takes.
ARG BASE
FROM ${BASE}
ARG LIBRARIES=
RUN if [ -n "$LIBRARIES" ]; then apt-get update && apt-get install -y --no-install-recommends $LIBRARIES && rm -rf /var/lib/apt/lists/*; fi
COPY fdbserver fdbcli /usr/bin/
COPY libfdb_c.so /usr/lib/libfdb_c.so

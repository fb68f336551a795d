# The server, for any container runtime. PostgreSQL is not in it: set DATABASE_URL.
#
#   docker build -t loom-server .
#   docker build -t loom-server --target runtime --build-arg BINARY=target/dist/loom-server .   # with a binary built before
#   docker run -p 8080:8080 -e DATABASE_URL=postgres://… -v loom:/var/lib/loom loom-server

FROM rust:1.95-bookworm AS build
WORKDIR /src
# The image has the toolchain that rust-toolchain.toml asks for; nothing is downloaded beside it.
ENV RUSTUP_TOOLCHAIN=1.95.0
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --profile dist --package loom-server --features otlp \
    && install -D target/dist/loom-server /out/loom-server

FROM debian:bookworm-slim AS base
# git: repositories are served and maintained with it. ca-certificates: the roots for outgoing TLS.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates git libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --gid 0 --home-dir /var/lib/loom --no-create-home loom \
    && install -d -o loom -g 0 -m 2770 /var/lib/loom
# Any other uid works too (`docker run --user 12345`, OpenShift): its group is 0, and that owns the folder.
ENV HOME=/var/lib/loom LOOM_SERVER_DATA_DIR=/var/lib/loom
WORKDIR /var/lib/loom
VOLUME ["/var/lib/loom"]
USER 10001:0
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["loom-server", "healthcheck"]
ENTRYPOINT ["loom-server"]
CMD ["serve"]

FROM base AS runtime
ARG BINARY=target/dist/loom-server
COPY --chmod=755 ${BINARY} /usr/local/bin/loom-server

FROM base
COPY --from=build /out/loom-server /usr/local/bin/loom-server

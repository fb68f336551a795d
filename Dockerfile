# The server, for any container runtime. PostgreSQL is not in it: DATABASE_URL is required, and asked for at the start.
#
#   docker build -t loom-server --build-arg LOOM_GIT_SHA=$(git rev-parse HEAD) .
#   docker run -p 8080:8080 --read-only --tmpfs /tmp -e DATABASE_URL=postgres://… -v loom:/var/lib/loom loom-server
#
# For several platforms: docker buildx build --platform linux/amd64,linux/arm64 --build-arg … .
# With a binary that was built before:
#   docker build -t loom-server --target runtime --build-arg BINARY=target/dist/loom-server .

# The dashboard is the same on every platform: built once, on the builder's own.
FROM --platform=$BUILDPLATFORM node:24-bookworm-slim AS dashboard
WORKDIR /src/crates/dashboard/ui
# What builds it changes seldom: a layer of its own.
COPY crates/dashboard/ui/package.json crates/dashboard/ui/package-lock.json crates/dashboard/ui/.npmrc ./
RUN npm ci
COPY crates/dashboard/ui ./
# Its client of the API is made of the document.
COPY docs/openapi.json /src/docs/openapi.json
RUN npm run build

FROM rust:1.95-bookworm AS build
ARG LOOM_GIT_SHA
RUN case "$LOOM_GIT_SHA" in \
        *[!0-9a-f]* | '') echo 'which commit is this? --build-arg LOOM_GIT_SHA=<what git rev-parse HEAD says>' >&2; exit 1 ;; \
    esac; \
    [ ${#LOOM_GIT_SHA} -ge 40 ] || { echo 'LOOM_GIT_SHA is the whole id of the commit, of 40 digits' >&2; exit 1; }
WORKDIR /src
# The image has the toolchain that rust-toolchain.toml asks for; nothing is downloaded beside it.
ENV RUSTUP_TOOLCHAIN=1.95.0
COPY . .
COPY --from=dashboard /src/crates/dashboard/ui/dist crates/dashboard/ui/dist
# Crates of others are compiled once: what is compiled outlives the layer, for each platform by itself.
ARG TARGETPLATFORM
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,id=loom-target-$TARGETPLATFORM,target=/src/target,sharing=locked \
    LOOM_GIT_SHA=$LOOM_GIT_SHA cargo build --locked --profile dist --package loom-server --features otlp \
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
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["loom-server", "healthcheck"]
ENTRYPOINT ["loom-server"]
CMD ["serve"]

FROM base AS runtime
ARG BINARY=target/dist/loom-server
COPY --chmod=755 ${BINARY} /usr/local/bin/loom-server
RUN case "$(loom-server --version)" in \
        *'(unknown)') echo 'this binary does not know its commit: LOOM_GIT_SHA=<what git rev-parse HEAD says> cargo build …' >&2; exit 1 ;; \
    esac

FROM base
COPY --from=build /out/loom-server /usr/local/bin/loom-server

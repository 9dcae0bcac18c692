# syntax=docker/dockerfile:1
# docker build .                                                      an image on Debian slim, with a shell
# docker build --build-arg BASE=gcr.io/distroless/cc-debian12 .       an image of the program, glibc and root certificates
ARG BASE=debian:bookworm-slim
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends build-essential \
 && rm -rf /var/lib/apt/lists/*
# Writes the list of all crates into the program, for `cargo audit bin` and scanners of images.
RUN cargo install --locked cargo-auditable@0.7.7
WORKDIR /src

# The dependencies are a layer of their own: it is built again only when a manifest or the lock file changes.
COPY Cargo.toml Cargo.lock ./
COPY .cargo/config.toml .cargo/
COPY schema/Cargo.toml schema/
COPY runtime/Cargo.toml runtime/
COPY runtime/base/Cargo.toml runtime/base/
COPY runtime/bus/Cargo.toml runtime/bus/
COPY runtime/keys/Cargo.toml runtime/keys/
COPY runtime/presence/Cargo.toml runtime/presence/
COPY runtime/socketio/Cargo.toml runtime/socketio/
COPY runtime/store/Cargo.toml runtime/store/
COPY runtime/websocket/Cargo.toml runtime/websocket/
COPY handlers/Cargo.toml handlers/
COPY loadtest/Cargo.toml loadtest/
RUN for crate in schema runtime runtime/* handlers loadtest; do \
      [ ! -e "$crate/Cargo.toml" ] || { mkdir "$crate/src" && touch "$crate/src/lib.rs"; }; \
    done \
 && echo 'fn main() {}' >handlers/src/main.rs \
 && cargo auditable build --release --locked --package rollcall

# COPY keeps the files' times. Sources that are older than the empty files above would count as built, so they are
# touched.
COPY . .
RUN find schema runtime handlers -name '*.rs' -exec touch {} + \
 && cargo auditable build --release --locked --package rollcall \
 && strip --strip-debug -o /rollcall target/release/rollcall \
 && mkdir --mode 700 /data && chown 10001:10001 /data

# The image runs no command in its own base while it is built, so the base needs no shell.
FROM ${BASE}
COPY --from=build /rollcall /usr/local/bin/rollcall
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build --chown=10001:10001 /data /var/lib/rollcall
LABEL org.opencontainers.image.title="rollcall" \
      org.opencontainers.image.description="A gateway for online classrooms" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="0.1.0"
USER 10001:10001
WORKDIR /var/lib/rollcall
VOLUME /var/lib/rollcall
# The gateway listens outside of loopback only with a key: ROLLCALL_HS256_SECRET or ROLLCALL_JWKS.
ENV ROLLCALL_LISTEN=0.0.0.0:8080 ROLLCALL_ADMIN_LISTEN=127.0.0.1:9090 ROLLCALL_PROBE_LISTEN=0.0.0.0:9091
EXPOSE 8080 9090 9091
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["/usr/local/bin/rollcall", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/rollcall"]

# syntax=docker/dockerfile:1
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends build-essential \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src

# The dependencies are a layer of their own: it stays until a manifest or the lock file changes.
COPY Cargo.toml Cargo.lock ./
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
 && cargo build --release --locked --package rollcall

# COPY keeps the files' times, and cargo would take sources older than the empty ones for built.
COPY . .
RUN find schema runtime handlers -name '*.rs' -exec touch {} + \
 && cargo build --release --locked --package rollcall \
 && strip --strip-debug -o /rollcall target/release/rollcall

FROM debian:bookworm-slim
RUN useradd --uid 10001 --home-dir /var/lib/rollcall --create-home --shell /usr/sbin/nologin rollcall
COPY --from=build /rollcall /usr/local/bin/rollcall
USER rollcall
WORKDIR /var/lib/rollcall
VOLUME /var/lib/rollcall

# Outside of loopback the gateway starts only with a key: ROLLCALL_HS256_SECRET or ROLLCALL_JWKS.
ENV ROLLCALL_LISTEN=0.0.0.0:8080 ROLLCALL_ADMIN_LISTEN=127.0.0.1:9090
EXPOSE 8080 9090
# bash speaks enough HTTP, so the image needs no curl.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["/bin/bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/${ROLLCALL_ADMIN_LISTEN##*:} && printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 200 '"]

STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/rollcall"]

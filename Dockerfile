# tandem: one binary on a small Debian. Runs as user 10001, writes only to /data.
#   docker build -t tandem:3.0.0 .
#   docker run -p 127.0.0.1:4001:4001 -p 4433:4433 -p 4433:4433/udp -v tandem:/data tandem:3.0.0

FROM rust:1.95-bookworm AS build
WORKDIR /src
# The dependencies, built with an empty program: a layer that lasts until Cargo.lock or a crate of the workspace changes.
COPY Cargo.toml Cargo.lock ./
COPY crates crates
RUN mkdir src \
    && echo 'fn main() {}' >src/main.rs \
    && touch src/lib.rs \
    && cargo build --release --locked --bin tandem
COPY migrations migrations
COPY web-demo web-demo
COPY src src
# Cargo compares times: the sources must be newer than the empty program.
RUN touch src/main.rs src/lib.rs \
    && cargo build --release --locked --bin tandem \
    && install -D target/release/tandem /out/tandem \
    && strip --strip-debug /out/tandem \
    && install -d /out/data

FROM debian:bookworm-slim
# Certificate authorities for rediss:// and TLS to PostgreSQL, without another package.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/tandem /usr/local/bin/tandem
COPY --from=build --chown=10001:10001 /out/data /data
# A container has its own network, so all its interfaces are listened on. PORT serves /metrics and /status: publish it with care.
ENV HOST=0.0.0.0 DATA_DIR=/data CERTS_DIR=/data/certs LOG_FORMAT=json
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 4001/tcp 4433/tcp 4433/udp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=4s --start-period=20s --retries=3 CMD ["tandem", "health"]
ENTRYPOINT ["tandem"]

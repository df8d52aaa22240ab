# The server in an image with nothing else in it but the C library: no shell, no package manager, no root.
#
#   docker build -t syncwatch .
#   docker run -p 4000:4000 -v syncwatch:/data --stop-timeout 30 syncwatch

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --release -p syncwatch \
    && mkdir -p /out/data \
    && cp target/release/syncwatch /out/syncwatch

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/syncwatch /usr/local/bin/syncwatch
# The embedded default keeps its database here; with DATABASE_URL nothing is written.
COPY --from=build --chown=nonroot:nonroot /out/data /data
ENV HOST=0.0.0.0 PORT=4000 DATA_DIR=/data
WORKDIR /data
VOLUME /data
EXPOSE 4000
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/syncwatch"]

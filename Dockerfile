# The build image has the Swift toolchain; the image that runs has only the libraries that martlet links.
FROM swift:6.3-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends libcurl4-openssl-dev libpq-dev pkg-config \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# The dependencies on their own, so that a change of ours does not fetch them again.
COPY Package.swift ./
RUN swift package resolve
COPY . .
RUN swift build -c release --product martlet --static-swift-stdlib

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libcurl4 libpq5 tzdata \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin martlet
COPY --from=build /src/.build/release/martlet /usr/local/bin/
USER martlet
# SIGTERM is the graceful shutdown; in an exec-form entrypoint it reaches martlet itself.
STOPSIGNAL SIGTERM
ENTRYPOINT ["martlet"]
CMD ["--help"]

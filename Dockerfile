# One image, two jobs: `control-plane` or `proxy` (and `run`) is chosen by the command. A second target has iptables for an init container.
#   docker build -t meshwork:0.1.0 .
#   docker build -t meshwork-init:0.1.0 --target init .

FROM node:24-bookworm-slim AS build
WORKDIR /app
COPY package.json package-lock.json ./
COPY xds/proto ./xds/proto
# `npm ci` generates the protobuf types (prepare); what only development needs goes afterwards.
RUN npm ci && npm prune --omit=dev
COPY lib ./lib
COPY xds ./xds
COPY certs ./certs
COPY proxy ./proxy
COPY control-plane ./control-plane
COPY cli ./cli
RUN find . -name '*.test.ts' -not -path './node_modules/*' -delete && node cli/meshwork.js version

FROM debian:bookworm-slim AS init
RUN apt-get update && apt-get install -y --no-install-recommends iptables && rm -rf /var/lib/apt/lists/*
# Reads a rule set on standard input; the rules are whoever starts the container's.
ENTRYPOINT ["iptables-restore", "--wait"]

FROM node:24-bookworm-slim AS meshwork
LABEL org.opencontainers.image.title="Meshwork" org.opencontainers.image.licenses="Apache-2.0"
ENV NODE_ENV=production NODE_COMPILE_CACHE=/tmp/node-compile-cache
RUN groupadd --gid 1337 meshwork && useradd --uid 1337 --gid 1337 --no-create-home --shell /usr/sbin/nologin meshwork \
 && mkdir -p /var/lib/meshwork && chown 1337:1337 /var/lib/meshwork
WORKDIR /app
COPY --from=build /app /app
USER 1337:1337
# Stripped of types and compiled once, here: with a cold cache each container would load Node's TypeScript reader and keep it (17 MiB).
# The cache belongs to the user, the paths and the flags that the entry point has.
RUN node --max-semi-space-size=4 --no-parallel-scavenge --no-incremental-marking-task --v8-pool-size=1 --input-type=module -e "import { globSync } from 'node:fs'; for (const file of globSync('/app/{lib,xds,certs,proxy,control-plane}/**/*.ts')) if (!/testing/.test(file)) await import(file); for (const verb of ['proxy', 'run', 'control-plane']) await import('/app/cli/' + verb + '.ts');" \
 && node --max-semi-space-size=4 --no-parallel-scavenge --no-incremental-marking-task --v8-pool-size=1 /app/cli/meshwork.js help > /dev/null
ENTRYPOINT ["node", "--max-semi-space-size=4", "--no-parallel-scavenge", "--no-incremental-marking-task", "--v8-pool-size=1", "/app/cli/meshwork.js"]
CMD ["help"]

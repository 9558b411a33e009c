# Modelyard's image: the operator and the command line. Build it with any builder that reads a Dockerfile:
#   docker build --tag modelyard .
# Every Python package comes from uv.lock, or from a file beside it, with its hash.

# Debian 13 and its Python's newest patch when it was pinned (September 2026).
ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim-trixie@sha256:9d2e5553305c7c7b0097999bb17187c69b921ccd6bc9d40e4bb5ebe652c00285

FROM ${PYTHON_IMAGE} AS build
# Only for networks whose proxy has a certificate authority of its own: its file, mounted into the build.
ARG SSL_CERT_FILE
# Compiled here, because the file system is read-only where the image runs. Packages are copied, not linked, so that
# they outlive uv's cache.
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PROJECT_ENVIRONMENT=/opt/modelyard \
    UV_PYTHON_PREFERENCE=only-system
WORKDIR /build
COPY dev/image/uv.txt dev/image/build.txt ./
RUN ["python3", "-m", "venv", "uv"]
RUN ["uv/bin/pip", "install", "--no-cache-dir", "--only-binary=:all:", "--require-hashes", "--requirement=uv.txt"]
# Before our own code: a change of it does not install everything else again.
COPY pyproject.toml uv.lock ./
RUN ["uv/bin/uv", "sync", "--frozen", "--no-dev", "--no-install-project"]
COPY LICENSE README.md ./
COPY operator operator
RUN ["uv/bin/uv", "build", "--wheel", "--build-constraints=build.txt", "--require-hashes", "--out-dir=wheel"]
RUN ["uv/bin/uv", "pip", "install", "--python=/opt/modelyard", "--no-index", "--no-deps", "--find-links=wheel", \
     "modelyard"]

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="Modelyard" \
      org.opencontainers.image.description="A Kubernetes operator that runs fleets of open LLMs on your own GPUs" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/modelyard /opt/modelyard
# What matplotlib and numba keep between runs goes where anybody may write; a read-only root needs a volume there.
ENV PATH=/opt/modelyard/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib \
    NUMBA_CACHE_DIR=/tmp/numba \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# Numbers, so that `runAsNonRoot` can be checked without the image's /etc/passwd.
USER 65532:65532
EXPOSE 18000 8081
ENTRYPOINT ["modelyard"]

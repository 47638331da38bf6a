# One image for every part of docker-compose.yml: Rowcast, PostgreSQL and a Java runtime as locked packages, Kafka,
# Connect and Debezium as the listed jars, each checked by SHA-256. The same programs as those of `rowcast up`.

# Debian 12, by its digest: a tag may move. Another base has to have apt-get and Python 3.11.
ARG BASE=debian:bookworm-20260824-slim@sha256:88200866dfff7ea7f5cbcb6ec7c8a701889efe6fe859fe64d6990e4b07ea4171

FROM ${BASE} AS python
# Without versions: a release of Debian only ever gets fixes, and what a fix replaced cannot be installed any more.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/*

FROM python AS packages
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && python3 -m venv /opt/packages
# For an index of your own; by default it is pip's.
ARG PIP_INDEX_URL
ARG PIP_FIND_LINKS
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY rowcast/draft/frame/requirements.txt /build/
RUN /opt/packages/bin/pip install --require-hashes --only-binary :all: -r /build/requirements.txt

# The jars change with their list alone, so that most builds find this layer made.
FROM packages AS jars
COPY rowcast/__init__.py rowcast/errors.py rowcast/secret_file.py /build/rowcast/
COPY rowcast/local /build/rowcast/local
WORKDIR /build
RUN ROWCAST_CACHE=/opt/jars /opt/packages/bin/python -m rowcast.local.jars

FROM packages AS program
COPY requirements/build.txt /build/
RUN python3 -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes --only-binary :all: -r /build/build.txt
COPY pyproject.toml README.md LICENSE /build/
COPY rowcast /build/rowcast
COPY stream_app /build/stream_app
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --no-index --wheel-dir /build/wheel /build \
    && /opt/packages/bin/pip install --no-deps --no-index --target /opt/rowcast /build/wheel/*.whl
COPY examples /opt/rowcast/examples

FROM python
RUN groupadd --gid 10001 rowcast \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin rowcast \
    && install --directory --owner rowcast --group rowcast --mode 0700 /var/lib/rowcast /project/.rowcast \
    && install --directory /secrets
COPY --from=jars /opt/jars /opt/jars
COPY --from=packages /opt/packages /opt/packages
COPY --from=program /opt/rowcast /opt/rowcast
ENV PATH=/opt/rowcast/bin:/opt/packages/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPATH=/opt/rowcast \
    PYTHONUNBUFFERED=1 \
    ROWCAST_CACHE=/opt/jars \
    ROWCAST_PROJECT=/project
WORKDIR /project
USER 10001:10001
CMD ["rowcast", "--help"]

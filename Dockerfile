# Two stages: what builds the wheel stays behind.
# A package index of your own: docker build --secret id=pip.conf,src=$HOME/.config/pip/pip.conf .
FROM python:3.13-slim AS build
WORKDIR /src
COPY requirements.lock dev/locks/build.lock ./
# All is locked, what builds the wheel included; --no-build-isolation has it fetch nothing else.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python -m venv /opt/build \
 && python -m venv /opt/worker \
 && /opt/build/bin/pip install --no-cache-dir --require-hashes --no-deps -r build.lock \
 && /opt/worker/bin/pip install --no-cache-dir --require-hashes --no-deps -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY worker worker
COPY alembic alembic
RUN /opt/build/bin/pip wheel --no-build-isolation --no-deps --no-index --wheel-dir /dist . \
 && /opt/worker/bin/pip install --no-deps --no-index /dist/*.whl

FROM python:3.13-slim
RUN useradd --no-log-init --shell /usr/sbin/nologin --uid 10001 --no-create-home worker
COPY --from=build /opt/worker /opt/worker
ENV PATH=/opt/worker/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
ENTRYPOINT ["worker"]
CMD ["run"]
STOPSIGNAL SIGTERM
# Whether it runs; a database that is down is no reason to replace the container.
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s CMD ["worker", "health", "--live"]

# Two stages: what builds the wheel stays behind.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE requirements.lock ./
COPY worker worker
COPY alembic alembic
RUN python -m venv /opt/worker \
 && /opt/worker/bin/pip install --no-cache-dir --require-hashes --no-deps -r requirements.lock \
 && /opt/worker/bin/pip install --no-cache-dir --no-deps .

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home worker
COPY --from=build /opt/worker /opt/worker
ENV PATH=/opt/worker/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
ENTRYPOINT ["worker"]
CMD ["run"]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8765/livez', timeout=3)"]

# One image for every process: `docker run gridtally:0.1.0 bridge`, `… worker settle`, `… console`, `… migrate`.
# linux/amd64: faust-streaming has no wheel for other processors, and nothing is compiled here.
# The tag is pinned, its digest is not: docs/deployment.md says how to pin it.
FROM python:3.12.13-slim-bookworm AS packages
RUN python -m venv /opt/gridtally
COPY requirements/production.txt /tmp/production.txt
RUN /opt/gridtally/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
    --require-hashes --only-binary :all: --requirement /tmp/production.txt
COPY . /app
# The project itself as a path file and a command, as deploy/setup.sh does it: the tariffs lie beside the packages.
RUN echo /app >"$(/opt/gridtally/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/gridtally.pth" \
    && printf '#!/opt/gridtally/bin/python\nfrom gridtally.cli import main\n\nmain()\n' >/opt/gridtally/bin/gridtally \
    && chmod 0755 /opt/gridtally/bin/gridtally \
    && /opt/gridtally/bin/python -m compileall -q /app

FROM python:3.12.13-slim-bookworm
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/gridtally --shell /usr/sbin/nologin gridtally \
    && install -d -o gridtally -g gridtally -m 0700 /var/lib/gridtally
COPY --from=packages /opt/gridtally /opt/gridtally
COPY --from=packages /app /app
ENV PATH=/opt/gridtally/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    GRIDTALLY_DATA_DIR=/var/lib/gridtally
USER 10001:10001
WORKDIR /var/lib/gridtally
HEALTHCHECK --interval=10s --timeout=5s --start-period=40s --retries=3 CMD ["python", "/app/deploy/health.py"]
ENTRYPOINT ["gridtally"]
CMD ["--help"]

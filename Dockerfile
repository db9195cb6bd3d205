# The vault in a container: `docker build -t portvault .`, then `docker run -p 127.0.0.1:8700:8700
# -v portvault-data:/var/lib/portvault/data -v portvault-keys:/var/lib/portvault/data-keys portvault`.
# Alone it keeps everything, PostgreSQL included, in those volumes; with PORTVAULT_DATABASE,
# PORTVAULT_OBJECTS and PORTVAULT_CUSTODIAN it keeps what they name elsewhere there.
# Plain HTTP is spoken to the container itself only: name the address of the proxy in front of it in
# PORTVAULT_TRUSTED_PROXIES (after 127.0.0.1, which the health check comes from), as one address, or
# mount a certificate and a key and set PORTVAULT_TLS_CERTIFICATE and PORTVAULT_TLS_KEY.
#
# Not built or run by the tests of this project, which have no container engine. They run on Python
# 3.11 and 3.13, so that `3.13-slim` will do below, too.

FROM python:3.11-slim AS build
WORKDIR /build
RUN python -m venv /opt/portvault
COPY requirements.lock ./
RUN /opt/portvault/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml ./
COPY keys keys
COPY migrations migrations
COPY vault vault
RUN /opt/portvault/bin/pip install --no-cache-dir --no-deps --no-build-isolation --no-index .

FROM python:3.11-slim
# One user, who owns the data and nothing else. The root keys stand beside the data, so that a copy
# of the one is not a copy of the other; give them a volume of their own.
RUN useradd --system --uid 8700 --home-dir /var/lib/portvault --shell /usr/sbin/nologin portvault \
    && install -d -o portvault -g portvault -m 0700 \
        /var/lib/portvault /var/lib/portvault/data /var/lib/portvault/data-keys
COPY --from=build /opt/portvault /opt/portvault
USER portvault
ENV PATH=/opt/portvault/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PORTVAULT_HOME=/var/lib/portvault/data \
    PORTVAULT_HOST=0.0.0.0 \
    PORTVAULT_TRUSTED_PROXIES=127.0.0.1
VOLUME ["/var/lib/portvault/data", "/var/lib/portvault/data-keys"]
EXPOSE 8700
# The embedded PostgreSQL has a moment to write its last checkpoint.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["python", "-c", \
    "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ.get(\"PORTVAULT_PORT\", 8700)}/healthz', timeout=2)"]
ENTRYPOINT ["portvault"]
CMD ["serve"]

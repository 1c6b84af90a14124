# Daemon and page in one container; see docs/evidence/index.md for what was run of this and what was not.
FROM python:3.11-slim-bookworm

# OpenCV, which tiatoolbox imports, wants these two.
RUN apt-get update && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 && rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY pyproject.toml hatch_build.py README.md LICENSE NOTICE ./
COPY wsi_denoise wsi_denoise
COPY dashboard dashboard
COPY migrations migrations

RUN python -m venv /opt/wsi-denoise && /opt/wsi-denoise/bin/pip install --no-cache-dir uv
RUN /opt/wsi-denoise/bin/uv pip install --python /opt/wsi-denoise/bin/python ".[cpu,postgres,oidc]"

RUN useradd --create-home --uid 1000 lab && mkdir -p /data/.wsi-denoise && chown -R lab /data
USER lab
WORKDIR /data
VOLUME /data
ENV PATH=/opt/wsi-denoise/bin:$PATH \
    PYTHONSAFEPATH=1 \
    WSI_DENOISE_DASHBOARD__HOST=0.0.0.0
EXPOSE 8501
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8501/healthz', timeout=5)"]
# The page is reachable from outside the container, so WSI_DENOISE_DASHBOARD__TOKEN has to be set.
ENTRYPOINT ["wsi-denoise"]
CMD ["up", "--port", "8501"]

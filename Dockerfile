# The HTTP service, on a CPU: see docs/serve.md. Runs as a user without rights; the root may be read-only.
#
#   docker build -t mst-clipiqa .
#   docker run --rm -p 127.0.0.1:8000:8000 -e MST_CLIPIQA_TOKEN --read-only --tmpfs /tmp mst-clipiqa
#
# PIP_ARGS goes to pip: name the index of torch's CPU build there, or the image also holds the libraries of a GPU.

FROM python:3.11-slim AS build
ARG PIP_ARGS=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY pyproject.toml MANIFEST.in constraints.txt README.md LICENSE NOTICE ./
COPY mst_clipiqa mst_clipiqa
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install ${PIP_ARGS} -c constraints.txt ".[serve,heic]"

FROM python:3.11-slim
COPY --from=build /opt/venv /opt/venv
# Nothing is fetched at run time; what a library wants to write goes to /tmp.
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    HF_HUB_OFFLINE=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["mst-clipiqa"]
CMD ["serve", "--host", "0.0.0.0"]

# docker build -t ser-companion . && docker run --rm -p 127.0.0.1:8888:8888 ser-companion
FROM python:3.12-slim-bookworm

RUN apt-get update \
    && apt-get install -y --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*

# not root, and the number that hosted notebooks expect
RUN useradd --create-home --uid 1000 reader
USER reader
WORKDIR /home/reader/ser-companion

# packages first: they change less often than the code
COPY --chown=reader:reader Makefile pyproject.toml requirements.lock ./
RUN make setup
COPY --chown=reader:reader . .

EXPOSE 8888
# a published port reaches this address alone; JupyterLab asks for the token that it prints
CMD [".venv/bin/jupyter", "lab", "--ip=0.0.0.0", "--port=8888", "--no-browser", "--notebook-dir=notebooks"]

# The image of the workers, and that of the launcher of a Flex Template. docs/dataflow.md says how to use both.
#
#     docker build --tag IMAGE .
#     docker build --tag IMAGE --build-arg LOCK=requirements-gpu.lock .
#     docker build --tag IMAGE --target template --build-arg TEMPLATE_LAUNCHER=LAUNCHER_IMAGE .

# The launcher must have the same minor version of Python, and the same version of Beam (requirements.lock).
ARG PYTHON=3.11
ARG BEAM=2.77.0
# Google's image for launchers of Flex Templates in Python. Only the target `template` uses it.
ARG TEMPLATE_LAUNCHER=scratch

FROM apache/beam_python${PYTHON}_sdk:${BEAM} AS beam

FROM ${TEMPLATE_LAUNCHER} AS launcher

FROM python:${PYTHON}-slim AS build
ARG LOCK=requirements.lock
WORKDIR /source
RUN python -m venv /opt/pipeline
ENV PATH=/opt/pipeline/bin:$PATH
COPY requirements.lock requirements-gpu.lock ./
# --no-deps: the lock file is complete.
RUN pip install --no-cache-dir --use-pep517 --no-deps --require-hashes --requirement "$LOCK" && pip check
COPY pyproject.toml setup.py README.md LICENSE ./
COPY pipeline pipeline
# Builds with the locked setuptools.
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:${PYTHON}-slim AS worker
# Beam's program that starts a worker. It looks for Python in PATH.
COPY --from=beam /opt/apache/beam /opt/apache/beam
COPY --from=build /opt/pipeline /opt/pipeline
# RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT: otherwise Beam makes another virtual environment, which lacks the packages.
ENV PATH=/opt/pipeline/bin:$PATH \
    RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1 \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    TFHUB_CACHE_DIR=/var/cache/modules
# A module for launchers in this image, such as an address or untrained:mobilenet_v2_050_160. Workers need none: they
# take the module from --temp_location.
ARG MODULE=
RUN useradd --create-home --uid 1000 beam \
 && mkdir --mode=1777 "$TFHUB_CACHE_DIR" \
 && if [ -n "$MODULE" ]; then python -m pipeline.hub describe "$MODULE" && chmod -R a+rX "$TFHUB_CACHE_DIR"; fi
# Dataflow may need root: its files below /var/opt/google belong to root.
ARG RUN_AS=beam
USER ${RUN_AS}
ENTRYPOINT ["/opt/apache/beam/boot"]

FROM worker AS template
COPY --from=launcher /opt/google/dataflow/python_template_launcher /opt/google/dataflow/python_template_launcher
COPY pipeline/run.py /template/main.py
ENV FLEX_TEMPLATE_PYTHON_PY_FILE=/template/main.py

# The default target.
FROM worker

# The page to draw on, and every other command of vggnet.
#
#     docker build -t vggnet .
#     docker run --rm -p 8000:8000 vggnet
#     docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" vggnet train
#
# For NVIDIA GPUs: docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 …
# and docker run --gpus all …
FROM debian:bookworm-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

# g++ compiles the convolutions for the processor that the container runs on, at first use.
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/vggnet

# Any user can run the container: the cache is created by whoever does.
ENV PATH=/opt/vggnet/bin:$PATH \
    VGGNET_CACHE_DIR=/tmp/vggnet \
    MPLCONFIGDIR=/tmp/matplotlib \
    PIP_NO_CACHE_DIR=1

RUN pip install torch --index-url "$TORCH_INDEX"

COPY pyproject.toml README.md LICENSE /src/
COPY src /src/src
RUN pip install '/src[serve,export]'

# A model, so that the page works without one of your own.
RUN cd /opt/vggnet && vggnet train -o mnist_vggnet.pth --runs /tmp/runs \
    && rm -rf /tmp/runs /tmp/vggnet

WORKDIR /work
EXPOSE 8000
ENTRYPOINT ["vggnet"]
CMD ["serve", "/opt/vggnet/mnist_vggnet.pth", "--host", "0.0.0.0"]

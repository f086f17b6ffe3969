# docker build -t jaxptycho .                             CPU
# docker build -t jaxptycho:gpu --build-arg EXTRA=gpu .   NVIDIA, run with --gpus all
FROM python:3.12-slim
ARG EXTRA=formats
COPY . /src
RUN pip install --no-cache-dir "/src[formats,${EXTRA}]" && rm -r /src
WORKDIR /data
ENTRYPOINT ["jaxptycho"]

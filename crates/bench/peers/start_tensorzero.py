"""Starts TensorZero's gateway, which its Python package embeds, and prints where it listens."""

import sys
import time

import tensorzero

gateway = tensorzero._start_http_gateway(
    config_file=sys.argv[1],
    clickhouse_url=None,
    postgres_url=None,
    valkey_url=None,
    async_setup=False,
)
print(gateway.base_url.removesuffix("/openai/v1"), flush=True)
while True:
    time.sleep(3600)

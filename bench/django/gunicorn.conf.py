"""gunicorn's settings, as measured best on two cores for 1,000 keep-alive clients; run.sh says how many workers."""

import os

bind = os.environ["BIND"]
workers = int(os.environ["WORKERS"])
threads = int(os.environ["THREADS"])
worker_class = "gthread"
# A worker closes idle connections beyond this number, so each could hold all clients.
worker_connections = 4096
backlog = 4096
keepalive = 75  # seconds
timeout = 30  # seconds, the document's
graceful_timeout = 5
preload_app = True
worker_tmp_dir = "/dev/shm"
accesslog = os.environ.get("ACCESS_LOG") or None
errorlog = "-"
loglevel = "warning"

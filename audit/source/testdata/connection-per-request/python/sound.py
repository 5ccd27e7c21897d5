"""psycopg2.connect() in a view is what we left behind."""
from functools import lru_cache

import psycopg2
import redis
from django.db import connection
from psycopg2.pool import ThreadedConnectionPool

DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "CONN_MAX_AGE": 600}}
pool = ThreadedConnectionPool(1, 20, dsn="dbname=app")
cache = redis.Redis(host="cache")
_client = None


def user(request):
    # conn = psycopg2.connect()
    conn = pool.getconn()
    try:
        return conn.cursor(), cache.get("psycopg2.connect()"), client()
    finally:
        pool.putconn(conn)


def orm(request):
    with connection.cursor() as cur:
        cur.execute("select 1")


@lru_cache
def replica():
    return psycopg2.connect("dbname=replica")


def client():
    global _client
    if _client is None:
        _client = redis.Redis(host="other")
    return _client


def report(request):
    return replica()


def migrate():
    return psycopg2.connect("dbname=app")

"""The cache manager: JSON values in Redis with a time to live. Threads share one pool of connections."""

import json

import redis
from django.conf import settings

connection = redis.Redis.from_url(settings.VALKEY_URL)


def get_or_load(key, load):
    """Returns the cached value of key, or what load returns, which is kept."""
    text = connection.get(key)
    if text is not None:
        return json.loads(text)
    value = load()
    connection.set(key, json.dumps(value), ex=settings.CACHE_TTL)
    return value


def invalidate(key):
    """Forgets a value after a write."""
    connection.delete(key)

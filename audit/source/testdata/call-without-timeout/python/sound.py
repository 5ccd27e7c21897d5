"""requests.get("https://x.example") without a timeout waits forever."""
import functools
import urllib.request

import httpx
import requests

get = functools.partial(requests.get, timeout=5)


def rates(**options):
    # requests.get("https://rates.example")
    a = requests.get("https://rates.example", timeout=(3, 10))
    b = requests.get("https://rates.example", **options)
    c = urllib.request.urlopen("https://rates.example", None, 5)
    d = httpx.get("https://rates.example")
    e = get("https://rates.example")
    return a, b, c, d, e, "requests.get(url)"


class Repository:
    def __init__(self, requests):
        self.requests = requests

    def one(self, key):
        return self.requests.get(key) or {}.get(key)

import urllib.request

import httpx
import requests as r
from requests import post

session = r.Session()


def rates():
    a = r.get("https://rates.example")  # want
    b = post("https://rates.example", json={"timeout": 5})  # want
    c = session.get("https://rates.example")  # want
    d = r.request("GET", "https://rates.example", timeout=None)  # want
    e = urllib.request.urlopen("https://rates.example")  # want
    f = httpx.get("https://rates.example", timeout=None)  # want
    return a, b, c, d, e, f


class Client:
    def __init__(self):
        self.http = r.Session()

    def load(self):
        return self.http.put(  # want
            "https://rates.example",
            data="x",
        )

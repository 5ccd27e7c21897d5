import requests
from acme.http import TimeoutAdapter

session = requests.Session()
session.mount("https://", TimeoutAdapter(5))


def rates():
    return session.get("https://rates.example")

import asyncio
import time

import nest_asyncio
import psycopg2
import requests
from fastapi import FastAPI
from urllib.request import urlopen

nest_asyncio.apply()  # want

app = FastAPI()
session = requests.Session()


@app.get("/rates")
async def rates():
    time.sleep(1)  # want
    a = requests.get("https://rates.example", timeout=5)  # want
    b = session.post("https://rates.example", timeout=5)  # want
    c = urlopen("https://rates.example", timeout=5)  # want
    return [a, b, c]


async def load():
    with requests.Session() as s:
        s.get("https://x.example", timeout=5)  # want
    return psycopg2.connect("dbname=app")  # want


def view(request):
    return asyncio.run(load())  # want


class AuthMiddleware:
    def __call__(self, request):
        loop = asyncio.new_event_loop()
        return loop.run_until_complete(load())  # want

import psycopg2
import redis
from django.http import JsonResponse
from fastapi import FastAPI
from pymysql import connect as mysql_connect
from rest_framework.views import APIView

app = FastAPI()

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",  # want
        "NAME": "app",
    },
    "local": {
        "ENGINE": "django.db.backends.sqlite3",
    },
}


def user(request):
    conn = psycopg2.connect(host="db.acme.example", password="hunter2")  # want
    with conn.cursor() as cur:
        cur.execute("select 1")
    return JsonResponse({})


@app.get("/orders")
async def orders(limit: int = 10):
    db = mysql_connect(host="db")  # want
    return db.cursor().fetchmany(limit)


class Items(APIView):
    def post(self, request):
        cache = redis.Redis(host="cache")  # want
        cache.incr("items")
        return self.save()

    def save(self):
        return open_database().cursor()


def open_database():
    return psycopg2.connect("dbname=app")  # want

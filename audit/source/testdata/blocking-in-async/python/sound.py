"""import nest_asyncio; nest_asyncio.apply() was a mistake."""
import asyncio
import time

import httpx
import requests
from asgiref.sync import sync_to_async


async def rates():
    # time.sleep(1)
    await asyncio.sleep(1)
    async with httpx.AsyncClient(timeout=5) as client:
        a = await client.get("https://rates.example")
    b = await asyncio.to_thread(requests.get, "https://rates.example", timeout=5)
    c = await asyncio.get_running_loop().run_in_executor(None, lambda: requests.get("https://x.example", timeout=5))
    d = await sync_to_async(time.sleep)(1)

    def in_a_thread():
        time.sleep(1)
        return requests.get("https://rates.example", timeout=5)

    return a, b, c, d, await asyncio.to_thread(in_a_thread), "time.sleep(1)"


def synchronous(request):
    time.sleep(0.1)
    return requests.get("https://rates.example", timeout=5)


async def get(requests):
    return await requests.get("key")


def main():
    asyncio.run(rates())


if __name__ == "__main__":
    main()

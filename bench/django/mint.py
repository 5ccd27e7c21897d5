#!/usr/bin/python3
"""Prints tokens for COUNT users, made like the one token on standard input and signed with the same key.

usage: gantry token | mint.py KEY.pem COUNT
"""

import sys

import jwt


def main():
    path, count = sys.argv[1], int(sys.argv[2])
    model = sys.stdin.read().strip()
    header = jwt.get_unverified_header(model)
    claims = jwt.decode(model, options={"verify_signature": False})
    with open(path, "rb") as file:
        key = jwt.api_jwt.api_jws.get_algorithm_by_name("RS256").prepare_key(file.read())
    for number in range(1, count + 1):
        claims.update(sub=f"user_{number}", sid=f"sess_{number}", email=f"user_{number}@example.test")
        print(jwt.encode(claims, key, algorithm="RS256", headers={"kid": header["kid"]}))


if __name__ == "__main__":
    main()

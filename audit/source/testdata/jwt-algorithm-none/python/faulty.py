import jwt


def claims(token, key):
    return jwt.decode(token, key, algorithms=["HS256", "none"])  # want


def issue(payload):
    return jwt.encode(payload, None, algorithm="none")  # want

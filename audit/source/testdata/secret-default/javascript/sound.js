const session = require('express-session');
const jwt = require('jsonwebtoken');
const app = require('express')();

// const JWT_SECRET = process.env.JWT_SECRET || 'dev-secret';
const JWT_SECRET = process.env.JWT_SECRET;
if (!JWT_SECRET) throw new Error('JWT_SECRET is not set');
const empty = process.env.SESSION_SECRET || '';
const secretName = process.env.SECRET_NAME || 'prod/app';
const SECRET_KEY_ENV = 'SECRET_KEY';
const docs = "JWT_SECRET = process.env.JWT_SECRET || 'dev-secret'";
const sessionKey = 'session';
const port = process.env.PORT || '3000';
const labels = { secret: 'Secret', jwtSecret: 'JWT secret', secretPlaceholder: 'type it here' };

app.use(session({ secret: process.env.SESSION_SECRET, name: 'sid' }));

function compare(secret) {
  return secret === 'hunter2hunter2' ? labels : { type: 'secret', value: secret };
}

module.exports = { compare, empty, secretName, SECRET_KEY_ENV, docs, sessionKey, port, sign: (c) => jwt.sign(c, JWT_SECRET) };

const isKey = (text) => text.startsWith('-----BEGIN RSA PRIVATE KEY-----');
const mac = (data, key) => require('crypto').createHmac('sha256', key).update(data).digest('hex');

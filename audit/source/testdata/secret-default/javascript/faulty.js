const session = require('express-session');
const jwt = require('jsonwebtoken');
const app = require('express')();

const JWT_SECRET = process.env.JWT_SECRET || 'dev-secret'; // want
const sessionSecret = process.env.SESSION_SECRET ?? `changeme`; // want
const { COOKIE_SECRET = 'cookie-monster' } = process.env; // want
const apiSecret = 'a1b2c3d4e5f6'; // want

app.use(session({
  secret: 'keyboard cat', // want
  resave: false,
}));

module.exports = {
  jwtSecret: process.env['JWT_SECRET'] || "fall-back", // want
  sign: (claims) => jwt.sign(claims, 'shhhhh'), // want
  check: (token) => jwt.verify(token, JWT_SECRET, { algorithms: ['HS256'] }),
  key: sessionSecret + COOKIE_SECRET + apiSecret,
};

const crypto = require('crypto');
const pem = '-----BEGIN RSA PRIVATE KEY-----\r\nMIICXAIBAAKBgQDNwqLEe9wgTXCbC7+RPdDbBbeqjdbs4kOPOIGzqLpXvJXlxxW8'; // want
const mac = (data) => crypto.createHmac('sha256', 'pa4qacea4VK9t9nGv7yZtwmj').update(data + pem).digest('hex'); // want

const express = require('express');
const jwt = require('jsonwebtoken');
const { decode } = require('jsonwebtoken');
const simple = require('jwt-simple');

const app = express();

app.use((req, res, next) => {
  const token = (req.headers.authorization || '').replace(/^Bearer /, '');
  const claims = jwt.decode(token); // want
  req.user = claims.sub;
  next();
});

app.get('/me', async (req, res) => {
  const { payload } = decode(req.query.token, { complete: true }); // want
  res.json(payload);
});

function userOf(token) {
  return simple.decode(token, null, true); // want
}

function fallback(token, key) {
  try {
    return jwt.verify(token, key, { algorithms: ['RS256'] });
  } catch (err) {
    return jwt.decode(token); // want
  }
}

function anyKey(token) {
  return jwt.verify(token, null); // want
}

function byHand(token) {
  return JSON.parse(Buffer.from(token.split('.')[1], 'base64').toString()); // want
}

module.exports = { app, userOf, fallback, anyKey, byHand };

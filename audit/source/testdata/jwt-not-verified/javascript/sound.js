const jwt = require('jsonwebtoken');
const simple = require('jwt-simple');
const jwks = require('jwks-rsa');

const client = jwks({ jwksUri: 'https://acme.example/jwks' });

// const claims = jwt.decode(token);
const note = 'jwt.decode(token) is not a check';
const manual = `see ${note}: jwt.decode(token)`;
const pattern = /jwt.decode\(token\)/;

async function verify(token) {
  const decoded = jwt.decode(token, { complete: true });
  const key = await client.getSigningKey(decoded.header.kid);
  return jwt.verify(token, key.getPublicKey(), { algorithms: ['RS256'] });
}

async function keyOf(token) {
  const decoded = jwt.decode(token, { complete: true });
  if (!decoded) throw new Error(`bad token: ${pattern}`);
  return client.getSigningKey(decoded.header.kid);
}

function legacy(token, key) {
  return simple.decode(token, key); // this one verifies
}

function callback(token, key, done) {
  const tenant = jwt.decode(token).tenant;
  jwt.verify(token, key[tenant], { algorithms: ['ES256'] }, (err, claims) => done(err, claims));
}

const page = decodeURIComponent('%7B');

module.exports = { verify, keyOf, legacy, callback, page, manual };

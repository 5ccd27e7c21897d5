// A small Express API that checks tokens with the library and in the way that its argument says:
//
//   node app.js jose      node-jose, whichever version is installed beside it
//   node app.js verify    jsonwebtoken, verify with a key and a list of algorithms
//   node app.js decode    jsonwebtoken, decode taken for verify; Express is left as it comes
//
// PUBLIC_KEY names the issuer's public key in PEM, PORT is the port of loopback to listen on. With LIMIT=subject each user may
// send 40 requests in 2 s, with LIMIT=address each address, as X-Forwarded-For tells it.
'use strict';

const fs = require('node:fs');
const http = require('node:http');
const express = require('express');

const issuer = 'https://issuer.example';
const audience = 'notes';
const publicKey = fs.readFileSync(process.env.PUBLIC_KEY, 'utf8');

// Each resolves to the claims of a token, or throws.
const checks = {
  jose() {
    const jose = require('node-jose');
    const store = jose.JWK.createKeyStore();
    const ready = store.add(publicKey, 'pem', {kid: 'issuer-1', use: 'sig', alg: 'RS256'});
    return async (token) => {
      await ready;
      const {header, payload} = await jose.JWS.createVerify(store).verify(token);
      const claims = JSON.parse(payload.toString());
      const now = Date.now() / 1000;
      if (header.typ !== 'at+jwt' || claims.iss !== issuer || claims.aud !== audience) throw new Error('not for us');
      if (!(claims.exp > now - 10) || claims.nbf > now + 10) throw new Error('not now');
      return claims;
    };
  },
  verify() {
    const jwt = require('jsonwebtoken');
    return async (token) => {
      const claims = jwt.verify(token, publicKey, {algorithms: ['RS256'], issuer, audience});
      if (!claims.exp) throw new Error('never expires');
      return claims;
    };
  },
  decode() {
    const jwt = require('jsonwebtoken');
    return async (token) => {
      const claims = jwt.decode(token);
      if (!claims) throw new Error('not a token');
      return claims;
    };
  },
};
const claimsOf = checks[process.argv[2]]();

async function authenticate(req, res, next) {
  const [scheme, token] = (req.get('Authorization') || '').split(' ');
  try {
    if (scheme !== 'Bearer') throw new Error('no bearer token');
    req.claims = await claimsOf(token);
  } catch {
    return res.status(401).set('WWW-Authenticate', 'Bearer').json({error: 'unauthorized'});
  }
  next();
}

// Counts what comes after authenticate.
function limit(app) {
  const by = process.env.LIMIT;
  if (!by) return (req, res, next) => next();
  if (by === 'address') app.set('trust proxy', true);
  return require('express-rate-limit').rateLimit({
    windowMs: 2000, limit: 40, standardHeaders: 'draft-7', legacyHeaders: false, message: {error: 'too many requests'}, validate: false,
    ...(by === 'subject' && {keyGenerator: (req) => req.claims.sub}),
  });
}

const careful = process.argv[2] !== 'decode';
const app = express();
if (careful) {
  app.disable('x-powered-by');
  app.set('etag', false);
  app.use((req, res, next) => {
    res.set({'Cache-Control': 'no-store', 'X-Content-Type-Options': 'nosniff'});
    next();
  });
}

app.get('/healthz', (req, res) => res.json({status: 'ok'}));
app.get('/me', authenticate, limit(app), (req, res) => res.json({sub: req.claims.sub, plan: 'free'}));
app.post('/notes', authenticate, express.json({limit: '64kb'}), (req, res) => {
  if (!req.is('application/json')) return res.status(415).json({error: 'the body must be application/json'});
  const {title} = req.body;
  if (typeof title !== 'string' || title === '') return res.status(422).json({error: 'a title is needed'});
  res.status(201).json({id: 1, title});
});

if (careful) {
  app.use((req, res) => res.status(404).json({error: 'not found'}));
  app.use((err, req, res, next) => res.status(err.status || 500).json({error: http.STATUS_CODES[err.status] || 'internal error'}));
}

http.createServer({headersTimeout: 5000, requestTimeout: 8000, connectionsCheckingInterval: 1000}, app)
  .listen(process.env.PORT, '127.0.0.1');

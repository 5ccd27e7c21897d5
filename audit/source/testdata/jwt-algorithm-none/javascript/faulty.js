const jwt = require('jsonwebtoken');
const { expressjwt } = require('express-jwt');

function verify(token, key) {
  return jwt.verify(token, key, { algorithms: ['RS256', 'none'] }); // want
}

const guard = expressjwt({
  secret: process.env.JWT_SECRET,
  algorithms: ['HS256', 'none'], // want
});

const issue = (payload) => jwt.sign(payload, '', { algorithm: 'none' }); // want

module.exports = { verify, guard, issue };

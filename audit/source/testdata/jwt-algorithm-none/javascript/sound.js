const jwt = require('jsonwebtoken');

// algorithms: ['none']
const verify = (token, key) => jwt.verify(token, key, { algorithms: ['RS256'] });

function style(el) {
  return animate(el, { algorithm: 'none', display: 'none' });
}

const refused = "jwt.verify(token, key, { algorithms: ['none'] })";

module.exports = { verify, style, refused };

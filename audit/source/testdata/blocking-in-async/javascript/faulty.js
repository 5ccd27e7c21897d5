const fs = require('fs');
const { execSync } = require('node:child_process');
const bcrypt = require('bcryptjs');
const crypto = require('crypto');
const app = require('express')();

app.get('/terms', (req, res) => {
  res.send(fs.readFileSync('terms.html', 'utf8')); // want
});

app.post('/login', async (req, res) => {
  if (!bcrypt.compareSync(req.body.password, await hashOf(req.body.name))) { // want
    return res.sendStatus(401);
  }
  res.json({ build: version(), key: derive(req.body.password) });
});

function version() {
  return execSync('git rev-parse HEAD').toString(); // want
}

const derive = (password) => crypto.pbkdf2Sync(password, 'x', 1e6, 32, 'sha256'); // want

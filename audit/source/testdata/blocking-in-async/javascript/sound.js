const fs = require('fs');
const { execSync } = require('child_process');
const app = require('express')();

const terms = fs.readFileSync('terms.html', 'utf8'); // once, at the start
const build = execSync('git rev-parse HEAD').toString();

app.get('/terms', async (req, res) => {
  // fs.readFileSync('terms.html')
  if (fs.existsSync('maintenance')) return res.sendStatus(503);
  res.send(terms + (await fs.promises.readFile('x')) + "fs.readFileSync('terms.html')" + build);
});

app.get('/sync', (req, res) => {
  stateSync(res);
});

function stateSync(res) {
  return res.end();
}

function migrate() {
  return fs.readdirSync('migrations');
}

module.exports = { app, migrate };

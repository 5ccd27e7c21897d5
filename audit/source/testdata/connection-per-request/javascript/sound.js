const express = require('express');
const { Client, Pool } = require('pg');
const Redis = require('ioredis');

const app = express();
const pool = new Pool({ max: 20 });
const redis = new Redis();
let replica;

// new Client() per request
app.get('/users', async (req, res) => {
  const client = await pool.connect();
  try {
    res.json(await client.query("select 'new Client()'"));
  } finally {
    client.release();
  }
});

app.get('/slow', async (req, res) => {
  if (!replica) {
    replica = new Pool({ max: 5 });
  }
  res.json(await replica.query('select 1'));
});

async function migrate() {
  const client = new Client();
  await client.connect();
}

module.exports = { app, redis, migrate };

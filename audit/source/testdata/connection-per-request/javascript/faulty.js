const express = require('express');
const { Client, Pool } = require('pg');
const mysql = require('mysql2/promise');
const Redis = require('ioredis');

const app = express();

app.get('/users/:id', async (req, res) => {
  const client = new Client({ connectionString: process.env.DATABASE_URL }); // want
  await client.connect();
  res.json((await client.query('select * from users where id = $1', [req.params.id])).rows);
});

app.post('/orders', async function (req, res) {
  const db = await mysql.createConnection({ host: 'db', password: 'hunter2' }); // want
  await save(db);
  res.sendStatus(201);
});

async function audit() {
  const redis = new Redis(); // want
  await redis.incr('orders');
}

async function save(db) {
  await audit();
  return new Pool().query('select 1'); // want
}

const axios = require('axios');
const https = require('https');
const got = require('got');

async function rates(id) {
  const a = await fetch(`https://rates.example/${id}`); // want
  const b = await fetch('https://rates.example', { method: 'POST', body: id }); // want
  const c = await axios.get('https://rates.example', { params: { id } }); // want
  const d = await axios.post('https://rates.example', { id }); // want
  const e = await axios({ url: 'https://rates.example', method: 'put' }); // want
  const f = await got('https://rates.example'); // want
  https.get('https://rates.example', (res) => res.resume()); // want
  return [a, b, c, d, e, f];
}

const api = axios.create({ baseURL: 'https://rates.example' }); // want

module.exports = { rates, api };

const axios = require('axios');
const https = require('https');

const api = axios.create({ baseURL: 'https://rates.example', timeout: 5000 });

async function rates(id, options) {
  // fetch('https://rates.example')
  const a = await fetch(`https://rates.example/${id}`, { signal: AbortSignal.timeout(5000) });
  const b = await fetch('https://rates.example', options);
  const c = await axios.get('https://rates.example', { ...options });
  const d = await axios.post('https://rates.example', { id }, { timeout: 5000 });
  const e = await api.get('/rates');
  const f = await axios.get('https://rates.example', options);
  const request = https.get('https://rates.example', (res) => res.resume());
  request.setTimeout(5000, () => request.destroy());
  return [a, b, c, d, e, f, "fetch('https://rates.example')"];
}

const prefetch = (cache) => cache.fetch('rates');

module.exports = { rates, prefetch };

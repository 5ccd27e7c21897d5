import React, { useEffect, useState } from 'react';
import axios from 'axios';

export const Rates = () => {
  const [rates, setRates] = useState<string[]>([]);
  useEffect(() => {
    fetch('/api/rates').then((r) => r.json()).then(setRates);
    axios.get('/api/more');
  }, []);
  return <ul>{rates.map((r) => <li key={r}>it's {r} : {'}'}</li>)}</ul>;
};

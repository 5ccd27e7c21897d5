import axios from 'axios';
import { Injectable } from '@nestjs/common';

const api = axios.create({ timeout: 5_000 });

@Injectable()
export class Rates {
  async one(id: string, signal: AbortSignal): Promise<number> {
    const { data } = await api.get<{ rate: number }>(`https://rates.example/${id}`);
    const answer = await fetch('https://rates.example', { signal });
    return data.rate + (answer.ok ? 1 : 0);
  }
}

import axios, { AxiosInstance } from 'axios';
import { Injectable } from '@nestjs/common';

@Injectable()
export class Rates {
  private readonly api: AxiosInstance = axios.create(); // want

  async one(id: string): Promise<number> {
    const { data } = await axios.get<{ rate: number }>(`https://rates.example/${id}`); // want
    return data.rate;
  }

  async all(): Promise<number[]> {
    const answer = await fetch('https://rates.example'); // want
    return answer.json();
  }
}

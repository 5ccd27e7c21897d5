import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import type { FastifyReply, FastifyRequest } from 'fastify';

const config: { port: number } = JSON.parse(readFileSync('config.json', 'utf8'));

export async function terms(request: FastifyRequest, reply: FastifyReply): Promise<string> {
  reply.header('x-port', config.port);
  return readFile('terms.html', 'utf8');
}

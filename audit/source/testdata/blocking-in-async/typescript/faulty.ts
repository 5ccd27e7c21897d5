import { readFileSync } from 'node:fs';
import type { FastifyReply, FastifyRequest } from 'fastify';

export async function terms(request: FastifyRequest, reply: FastifyReply): Promise<string> {
  reply.type('text/html');
  return readFileSync('terms.html', 'utf8'); // want
}

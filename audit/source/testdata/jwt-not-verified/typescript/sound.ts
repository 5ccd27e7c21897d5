import express from 'express';
import { createRemoteJWKSet, decodeJwt, jwtVerify, type JWTPayload } from 'jose';

const sets = new Map<string, ReturnType<typeof createRemoteJWKSet>>();

/** Unlike jwt.decode(token), this verifies. */
export async function verify(token: string): Promise<JWTPayload> {
  const { iss } = decodeJwt(token);
  const set = sets.get(iss ?? '');
  if (!set) throw new Error("unknown issuer, see decodeJwt(token)");
  const { payload } = await jwtVerify(token, set, { algorithms: ['RS256'], issuer: iss });
  return payload;
}

export const app = express();

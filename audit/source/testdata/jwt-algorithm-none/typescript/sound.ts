import jwt, { type JwtPayload } from 'jsonwebtoken';

type Algorithm = 'RS256' | 'none';

export function verify(token: string, key: string, algorithm: Algorithm = 'RS256'): JwtPayload {
  if (algorithm === 'none') throw new Error('none');
  return jwt.verify(token, key, { algorithms: [algorithm] }) as JwtPayload;
}

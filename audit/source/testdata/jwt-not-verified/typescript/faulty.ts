import type { Request, Response, NextFunction } from 'express';
import express from 'express';
import * as jwt from 'jsonwebtoken';
import { decodeJwt } from 'jose';
import { jwtDecode } from 'jwt-decode';

interface Claims { sub: string; roles?: string[] }

export async function authenticate(req: Request, res: Response, next: NextFunction): Promise<void> {
  const claims = jwt.decode(req.cookies['session'] as string) as Claims; // want
  res.locals.user = claims?.sub;
  next();
}

export class Guard {
  private readonly admins = new Set<string>();

  async allowed(token: string): Promise<boolean> {
    const { sub } = decodeJwt<Claims>(token); // want
    return this.admins.has(sub!);
  }
}

export const user = (token: string): Claims => jwtDecode<Claims>(token); // want

export const app = express();

import { ConfigService } from '@nestjs/config';
import { z } from 'zod';

export interface Secrets {
  jwtSecret: string;
  kind: 'secret' | 'public';
}

export enum Setting {
  JwtSecret = 'JWT_SECRET',
  SecretKey = 'secret_key',
}

const schema = z.object({ JWT_SECRET: z.string().min(32), LOG_LEVEL: z.string().default('info') });

export function secrets(config: ConfigService): Secrets {
  const jwtSecret: string = config.getOrThrow<string>('JWT_SECRET');
  return { jwtSecret, kind: jwtSecret ? 'secret' : 'public' };
}

export default schema;

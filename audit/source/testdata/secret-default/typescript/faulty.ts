import { ConfigService } from '@nestjs/config';
import { z } from 'zod';
import { JwtModule } from '@nestjs/jwt';

const schema = z.object({
  JWT_SECRET: z.string().min(8).default('insecure-default'), // want
  PORT: z.coerce.number().default(3000),
});

export class AuthConfig {
  private readonly jwtSecret: string = 'a-very-literal-secret'; // want

  constructor(private readonly config: ConfigService) {}

  get secret(): string {
    return this.config.get<string>('JWT_SECRET', 'nest-secret'); // want
  }
}

export const jwt = JwtModule.register({ secret: 'cats', signOptions: { expiresIn: '60s' } }); // want
export const sessionSecret: string = process.env.SESSION_SECRET! || 'typed-fallback'; // want
export default schema;

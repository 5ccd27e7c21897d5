import { Controller, Get, Injectable } from '@nestjs/common';
import { PrismaClient } from '@prisma/client';

@Injectable()
export class Database extends PrismaClient {}

const prisma = new PrismaClient();

@Controller('users')
export class UsersController {
  constructor(private readonly db: Database) {}

  /** Not new PrismaClient(). */
  @Get()
  async all(): Promise<unknown[]> {
    return [...(await this.db.user.findMany()), ...(await prisma.user.findMany())];
  }
}

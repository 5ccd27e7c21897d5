import { Controller, Get } from '@nestjs/common';
import { PrismaClient } from '@prisma/client';
import { MongoClient, type Db } from 'mongodb';

@Controller('users')
export class UsersController {
  @Get(':id')
  async one(id: string): Promise<unknown> {
    const prisma = new PrismaClient(); // want
    return prisma.user.findUnique({ where: { id } });
  }

  @Get()
  async all(): Promise<unknown[]> {
    return (await this.open()).collection('users').find().toArray();
  }

  private async open(): Promise<Db> {
    const client = await MongoClient.connect(process.env.MONGO_URL!); // want
    return client.db();
  }
}

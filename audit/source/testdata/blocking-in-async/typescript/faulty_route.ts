import fs from 'fs';
import { Body, Controller, Post } from '@nestjs/common';

@Controller()
export class Uploads {
  @Post('upload')
  upload(@Body() body: { name: string; data: Buffer }): { ok: boolean } {
    fs.writeFileSync(body.name, body.data); // want
    return { ok: true };
  }
}

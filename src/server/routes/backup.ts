/** A backup over HTTP: taken into a file of this machine, sent, removed. One at a time. */
import { randomBytes } from 'node:crypto'
import { createReadStream, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { FastifyInstance } from 'fastify'
import { SluiceError } from '../../errors.ts'
import { describe, type Operation } from '../api/operation.ts'
import { count, text } from '../api/schemas.ts'
import type { Context } from '../context.ts'

/** What the backup holds, for who receives it: the members of `BackupInfo` but the file. */
export const BACKUP_HEADER = 'sluice-backup'
const PREFIX = 'sluice-backup-'
const RETRY_MS = 10_000

const BACKUP: Operation = {
  id: 'takeBackup',
  tag: 'operate',
  access: { scope: 'admin', of: 'everything' },
  summary: 'A copy of everything, as it is at one moment, while the work goes on.',
  description:
    'For `sluice restore`. The copy is taken, read back and checked before the answer begins. One is taken at a time.',
  answers: {
    200: {
      description: 'The backup',
      headers: {
        'Content-Length': { description: 'Bytes of the backup: what is shorter was cut off', schema: count },
        'Sluice-Backup': { description: 'JSON: what it holds', schema: text },
      },
      content: { 'application/octet-stream': { type: 'string', contentEncoding: 'binary' } },
    },
  },
  errors: ['UNSUPPORTED', 'DISK_FULL'],
}

export function backupRoutes(app: FastifyInstance, { sluice, settings }: Context): void {
  let isTaken = false
  app.get('/v1/backup', describe(BACKUP), async (_request, reply) => {
    if (isTaken)
      throw new SluiceError('OVERLOADED', `A backup is being taken. Ask again in ${RETRY_MS} ms.`, {
        retryAfterMs: RETRY_MS,
      })
    isTaken = true
    const folder = settings.backupDir ?? tmpdir()
    const file = join(folder, `${PREFIX}${randomBytes(6).toString('hex')}`)
    const end = (): void => {
      rmSync(file, { force: true })
      isTaken = false
    }
    try {
      // A folder of ours alone: what is there was left by a server that was killed.
      if (settings.backupDir !== null)
        for (const name of readdirSync(folder)) if (name.startsWith(PREFIX)) rmSync(join(folder, name))
      const { file: _file, ...info } = await sluice.backup(file)
      const taken = new Date(info.finishedAtMs).toISOString().replace(/[:.]/g, '-')
      const content = createReadStream(file)
      content.once('close', end)
      return reply
        .header('content-length', info.fileBytes)
        .header('content-disposition', `attachment; filename="sluice-${taken}.backup"`)
        .header(BACKUP_HEADER, JSON.stringify(info))
        .type('application/octet-stream')
        .send(content)
    } catch (error) {
      end()
      throw error
    }
  })
}

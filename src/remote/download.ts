/** Fetches a backup from a server into a file of this machine, which has its name once all of it is there. */
import { randomBytes } from 'node:crypto'
import {
  closeSync,
  createWriteStream,
  existsSync,
  fsyncSync,
  linkSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs'
import { request as httpRequest, type IncomingMessage } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { dirname, resolve as resolvePath } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { SluiceError } from '../errors.ts'
import { type Sent, toSent } from './transport.ts'

const BACKUP_HEADER = 'sluice-backup'
/** A server may be silent for so long while it takes the backup, or sends it. */
const SILENCE_MS = 3_600_000

export interface Download {
  readonly origin: URL
  readonly headers: Readonly<Record<string, string>>
  readonly file: string
  readonly signal: AbortSignal
}

/** Resolves to the JSON of what it holds. Rejects with the server's refusal, or `UNKNOWN` where it was cut off: there is no file then. */
export async function downloadBackup({ origin, headers, file, signal }: Download): Promise<string> {
  const path = resolvePath(file)
  if (existsSync(path))
    throw new SluiceError(
      'INVALID_OPTION',
      `${path} is there already, and a backup overwrites nothing. Name a new file.`,
      {
        file: path,
      },
    )
  if (!existsSync(dirname(path)))
    throw new SluiceError('INVALID_OPTION', `The folder ${dirname(path)} of the backup is not there. Make it first.`, {
      file: path,
    })
  const unfinished = `${path}.unfinished-${randomBytes(4).toString('hex')}`
  try {
    const answer = await ask(origin, headers, signal)
    if (answer.statusCode !== 200) throw await refusalOf(answer)
    await pipeline(answer, createWriteStream(unfinished, { flags: 'wx', mode: 0o600 }))
    const expected = Number(answer.headers['content-length'])
    const { size } = statSync(unfinished)
    if (!answer.complete || size !== expected)
      throw new SluiceError('UNKNOWN', `The backup was cut off after ${size} of ${expected} bytes; there is none.`)
    const fd = openSync(unfinished, 'r+')
    fsyncSync(fd)
    closeSync(fd)
    giveName(unfinished, path)
    const info = JSON.parse(String(answer.headers[BACKUP_HEADER] ?? '{}')) as object
    return JSON.stringify({ file: path, ...info })
  } catch (error) {
    rmSync(unfinished, { force: true })
    if (signal.aborted) throw new SluiceError('CLOSED', 'Sluice was closed before the backup was here; there is none.')
    if (error instanceof SluiceError) throw error
    const { code } = error as { code?: string }
    if (code === 'ENOSPC' || code === 'EDQUOT')
      throw new SluiceError(
        'DISK_FULL',
        `There is no room for the backup ${path}, and there is none.`,
        { file: path },
        error,
      )
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'EEXIST')
      throw new SluiceError(
        'INVALID_OPTION',
        `The backup cannot be written: ${(error as Error).message}.`,
        { file: path },
        error,
      )
    throw new SluiceError('UNKNOWN', `There is no backup: ${(error as Error).message}.`, { file: path }, error)
  }
}

function ask(origin: URL, headers: Readonly<Record<string, string>>, signal: AbortSignal): Promise<IncomingMessage> {
  const send = origin.protocol === 'https:' ? httpsRequest : httpRequest
  return new Promise((resolve, reject) => {
    const request = send(new URL('/v1/backup', origin), { headers, signal, timeout: SILENCE_MS })
    request.once('timeout', () => request.destroy(new Error(`nothing came for ${SILENCE_MS} ms`)))
    request.once('error', reject)
    request.once('response', resolve)
    request.end()
  })
}

async function refusalOf(answer: IncomingMessage): Promise<SluiceError> {
  const pieces: Buffer[] = []
  for await (const piece of answer) pieces.push(piece as Buffer)
  const sent: Sent = toSent(answer, Buffer.concat(pieces))
  return sent.status === 'refused'
    ? sent.error
    : new SluiceError('UNKNOWN', 'The server answers, and not with a backup.')
}

/** Nothing that has come to have the name meanwhile is replaced, where the file system has hard links. */
function giveName(unfinished: string, file: string): void {
  try {
    linkSync(unfinished, file)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') throw error
    renameSync(unfinished, file)
    return
  }
  rmSync(unfinished)
}

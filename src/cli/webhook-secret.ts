/** `sluice webhook-secret`: what receivers of callbacks verify them with. */
import { mkdirSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { ensureSecretFile, generateSecret, readSecretFile, SECRET_FILE, writeSecretFile } from '../callbacks/secrets.ts'
import { type Command, type Input, UsageError } from './command.ts'
import { folderOf } from './opening.ts'

export const webhookSecret: Command = {
  name: 'webhook-secret',
  usage: '[--data DIR] [--rotate | --retire]',
  about:
    'Prints the secrets that callbacks of a data folder are signed with, the newest first, and makes one where there is none.\nA callback has a signature of each: --rotate adds a new one, --retire drops all but the newest once every receiver has it.\nA server that runs takes the change over by itself.',
  examples: ['sluice webhook-secret', 'sluice webhook-secret --rotate --data /var/lib/sluice'],
  options: {
    data: { type: 'string', value: 'DIR', text: 'The data folder. Default: ./data' },
    file: { type: 'string', value: 'FILE', text: 'The file, where it is not the one in the data folder.' },
    rotate: { type: 'boolean', text: 'Add a new secret in front.' },
    retire: { type: 'boolean', text: 'Keep the newest only.' },
  },
  async run(input) {
    if (input.words.length > 0)
      throw new UsageError(`sluice webhook-secret takes options only, not '${input.words[0]}'.`)
    if (input.has('rotate') && input.has('retire')) throw new UsageError('Give one of --rotate and --retire.')
    const path = pathOf(input)
    ensureSecretFile(path)
    let secrets = readSecretFile(path)
    if (input.has('rotate')) secrets = [generateSecret(), ...secrets].slice(0, 10)
    if (input.has('retire')) secrets = secrets.slice(0, 1)
    if (input.has('rotate') || input.has('retire')) writeSecretFile(path, secrets)
    process.stdout.write(input.isJson ? `${JSON.stringify({ file: path, secrets })}\n` : `${secrets.join('\n')}\n`)
    return 0
  },
}

function pathOf(input: Input): string {
  const file = input.value('file')
  if (file !== undefined) return resolve(file)
  const folder = folderOf(input, 'file')
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  return join(folder, SECRET_FILE)
}

/** `sluice keys create | list | revoke`: the API keys of a server, in a file that the server reads whether or not it runs. */
import { existsSync, mkdirSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { SluiceError } from '../errors.ts'
import { findNearest } from '../index.ts'
import { drawApiKey, hashSecret } from '../server/access/api-key.ts'
import {
  changeKeyFile,
  isLive,
  KEY_FILE,
  KEY_NAME,
  type KeyRecord,
  MAX_GRANTS,
  MAX_KEYS,
  readKeyFile,
} from '../server/access/key-file.ts'
import { formatGrant, type Grant, parseGrant, SCOPES } from '../server/access/scopes.ts'
import { type Command, type Input, UsageError } from './command.ts'
import { folderOf } from './opening.ts'
import { formatTable } from './table.ts'

const ACTS: Readonly<Record<string, (input: Input, path: string) => Promise<number>>> = {
  create,
  list,
  revoke,
}
const DAY_MS = 86_400_000
const MAX_DAYS = 3_650

export const keys: Command = {
  name: 'keys',
  usage: 'create --scope SCOPE[:PATTERN] … | list | revoke ID',
  about: `Makes, lists and revokes the API keys of a server. Once there is one, every call to the server needs one: on the
command line SLUICE_KEY, in TypeScript open(url, { credential }), else the header Authorization: Bearer.
A server that runs hears of a change within a second. docs/security.md says more.

Scopes: publish (add, ask for and cancel jobs; publish messages), consume (lease, extend, settle; groups), read
(messages, dead letters), admin (all of these, settings, pause, redrive, seek). PATTERN is the name of a queue or
topic, in which * stands for anything; without it the scope is for every name.`,
  examples: [
    'sluice keys create --name shop --scope publish:orders.* --scope read:orders.*',
    'sluice keys create --name worker-7 --scope consume:email --expires-days 90',
    'sluice keys create --name me --scope admin --json | jq -r .key',
    'sluice keys revoke k3x9ab41q0zz',
  ],
  options: {
    scope: { type: 'string', value: 'SCOPE', multiple: true, text: 'What the key may do. May be given again.' },
    name: { type: 'string', value: 'NAME', text: 'For people: whose it is.' },
    'expires-days': {
      type: 'string',
      value: 'N',
      text: `The key ends after N days, at most ${MAX_DAYS}. Default: never`,
    },
    data: { type: 'string', value: 'DIR', text: `The data folder, which has the file ${KEY_FILE}. Default: ./data` },
    keys: { type: 'string', value: 'FILE', text: 'The key file, where it is elsewhere: of a server on a broker.' },
  },
  async run(input) {
    const [act = ''] = input.words
    const run = Object.hasOwn(ACTS, act) ? ACTS[act] : undefined
    if (run === undefined) {
      const nearest = findNearest(act, Object.keys(ACTS))
      throw new UsageError(
        `Say what to do: sluice keys create, list or revoke.${nearest === null ? '' : ` Did you mean '${nearest}'?`}`,
      )
    }
    if (input.value('keys') !== undefined && input.value('data') !== undefined)
      throw new UsageError('Name one of --data and --keys.')
    return run(input, resolve(input.value('keys') ?? join(folderOf(input, 'keys'), KEY_FILE)))
  },
}

async function create(input: Input, path: string): Promise<number> {
  if (input.words.length > 1) throw new UsageError(`sluice keys create takes options only, not '${input.words[1]}'.`)
  const grants = readScopes(input.values('scope'))
  const name = input.value('name') ?? ''
  if (name !== '' && !KEY_NAME.test(name)) throw new UsageError('--name takes 1 to 100 printable characters.')
  const days = input.count('expires-days', 1, MAX_DAYS)
  const { id, secret, text } = drawApiKey()
  const createdAtMs = Date.now()
  const expiresAtMs = days === undefined ? null : createdAtMs + days * DAY_MS
  const record = { id, name, grants, hash: hashSecret(secret), createdAtMs, expiresAtMs, revokedAtMs: null }
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
  const isFirst = !existsSync(path)
  await changeKeyFile(path, (known) => addKey(known, record, createdAtMs))
  if (input.isJson) {
    say(JSON.stringify({ ...show(record), key: text }))
    return 0
  }
  say(`${text}

The key ${id} may: ${grants.map(formatGrant).join(', ')}${expiresAtMs === null ? '' : ` until ${new Date(expiresAtMs).toISOString()}`}.
It is shown this once: what is kept in ${path} is a hash of it.`)
  if (isFirst) say('It is the first, so from now on every call to a server with this file needs a key.')
  return 0
}

async function list(input: Input, path: string): Promise<number> {
  if (input.words.length > 1) throw new UsageError(`sluice keys list takes options only, not '${input.words[1]}'.`)
  const known = readKeyFile(path)
  if (input.isJson) {
    say(JSON.stringify(known.map(show)))
    return 0
  }
  if (known.length === 0) {
    say(`No key in ${path}.`)
    return 0
  }
  const rows = known.map((key) => {
    const { id, name, scopes, state, createdAtMs, expiresAtMs } = show(key)
    return [id, name, state, day(createdAtMs), expiresAtMs === null ? 'never' : day(expiresAtMs), scopes.join(' ')]
  })
  process.stdout.write(formatTable(['ID', 'NAME', 'STATE', 'MADE', 'ENDS', 'SCOPES'], rows))
  return 0
}

async function revoke(input: Input, path: string): Promise<number> {
  const [, id, ...rest] = input.words
  if (id === undefined || rest.length > 0) throw new UsageError('sluice keys revoke takes the id of one key.')
  // Who pastes a whole key has told the shell's history; its id is in it.
  const wanted = /^sluice_([a-z0-9]{12})_/.exec(id)?.[1] ?? id
  const nowMs = Date.now()
  let revoked: KeyRecord | null = null
  if (existsSync(path)) {
    await changeKeyFile(path, (known) =>
      known.map((key) => {
        if (key.id !== wanted) return key
        revoked = { ...key, revokedAtMs: key.revokedAtMs ?? nowMs }
        return revoked
      }),
    )
  }
  if (revoked === null)
    throw new SluiceError('INVALID_OPTION', `There is no such key in ${path}. sluice keys list shows the ids.`, {
      option: 'id',
    })
  say(
    input.isJson
      ? JSON.stringify(show(revoked))
      : `The key ${wanted} is revoked. A server that runs refuses it within a second.`,
  )
  return 0
}

function readScopes(given: readonly string[]): readonly Grant[] {
  if (given.length === 0) throw new UsageError(`Say what the key may do, such as --scope publish:orders.*`)
  if (given.length > MAX_GRANTS) throw new UsageError(`A key has at most ${MAX_GRANTS} scopes.`)
  return given.map((text) => {
    const grant = parseGrant(text)
    if (grant !== null) return grant
    const nearest = findNearest(text.split(':')[0] ?? '', SCOPES)
    throw new UsageError(
      `--scope is '${text}'; it must be one of ${SCOPES.join(', ')}, and may have a pattern of names behind a colon, such as publish:orders.*${nearest === null ? '' : `. Did you mean '${nearest}'?`}`,
    )
  })
}

/** At the limit those that are of no use any more make room. */
function addKey(known: readonly KeyRecord[], added: KeyRecord, nowMs: number): readonly KeyRecord[] {
  const kept = known.length < MAX_KEYS ? known : known.filter((key) => isLive(key, nowMs))
  if (kept.length >= MAX_KEYS)
    throw new SluiceError(
      'INVALID_OPTION',
      `There are ${kept.length} keys that are good, the limit: revoke some first.`,
    )
  return [...kept, added]
}

function show(key: KeyRecord) {
  const { id, name, grants, createdAtMs, expiresAtMs, revokedAtMs } = key
  const state = revokedAtMs !== null ? 'revoked' : isLive(key, Date.now()) ? 'good' : 'ended'
  return { id, name, state, scopes: grants.map(formatGrant), createdAtMs, expiresAtMs, revokedAtMs }
}

function day(atMs: number): string {
  return new Date(atMs).toISOString().slice(0, 10)
}

function say(text: string): void {
  process.stdout.write(`${text}\n`)
}

/** `sluice serve`: a data folder or a broker over HTTP, until it is told to stop. */
import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { open } from '../index.ts'
import { KEY_FILE } from '../server/access/key-file.ts'
import { createServer, type Server } from '../server/server.ts'
import { completeServerOptions, type ServerOptions } from '../server/settings.ts'
import { type Command, type Input, UsageError } from './command.ts'
import { formatLogLine } from './log-line.ts'
import { isUrl, withoutPassword } from './opening.ts'
import { CALLBACK_OPTIONS, callbackOptions, tellCallbacks } from './serve-callbacks.ts'

const DURABILITIES = {
  disk: 'what is acknowledged survives a power cut',
  os: 'what is acknowledged survives a killed process',
  memory: 'nothing survives the process',
} as const

export const serve: Command = {
  name: 'serve',
  usage: '[--port N] [--data LOCATION]',
  about:
    'Serves a data folder or a broker over HTTP, with the dashboard at /. One process has a folder at a time; any number of\nservers share a broker.\nCtrl-C or SIGTERM stops it: it takes nothing new, ends long polls, stores what is under way and exits. A second Ctrl-C exits at once.',
  examples: [
    'sluice serve',
    'sluice serve --port 9000 --data /var/lib/sluice',
    'sluice serve --data redis://127.0.0.1:6379?namespace=shop',
    'sluice serve --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem --allowed-host queue.example.com',
    'sluice serve --host 0.0.0.0 --behind-proxy --allowed-host queue.example.com',
  ],
  options: {
    port: { type: 'string', value: 'N', text: 'The port; 0 takes a free one. Default: 8787' },
    host: { type: 'string', value: 'ADDRESS', text: 'The address to listen on. Default: 127.0.0.1' },
    data: {
      type: 'string',
      value: 'LOCATION',
      text: "The data folder, made if it is not there; a broker, by its URL; ':memory:' keeps nothing. Default: ./data",
    },
    durability: {
      type: 'string',
      value: 'LEVEL',
      text: "What an acknowledgement means: disk or os. Default: the strongest: disk; with ':memory:', memory",
    },
    keys: {
      type: 'string',
      value: 'FILE',
      text: `The key file of sluice keys. Default: ${KEY_FILE} in the data folder, if it is there`,
    },
    'tls-cert': { type: 'string', value: 'FILE', text: 'Speak https, with this certificate (PEM, with its chain).' },
    'tls-key': { type: 'string', value: 'FILE', text: 'The private key of the certificate (PEM).' },
    'behind-proxy': {
      type: 'boolean',
      text: 'Allow an address that other machines reach without keys and TLS: a proxy in front sees to both.',
    },
    'allowed-host': {
      type: 'string',
      value: 'NAME',
      multiple: true,
      text: 'A further name that callers may use as Host. May be given again.',
    },
    ...CALLBACK_OPTIONS,
    'max-queues': { type: 'string', value: 'N', text: 'Queues and topics that first use may make. Default: 10000' },
  },
  async run(input) {
    if (input.words.length > 0) throw new UsageError(`sluice serve takes options only, not '${input.words[0]}'.`)
    const location = readLocation(input)
    const folder = location === ':memory:' || isUrl(location) ? null : location
    // Before the folder is opened, which would make it.
    const options = completeServerOptions(serverOptions(input, folder))
    const durability = readDurability(input)
    const callbacks = callbackOptions(input, folder)
    const sluice = await open(location, { durability, callbacks })
    try {
      const server = createServer(sluice, options)
      const stopped = waitForSignal()
      await server.listen()
      announce(
        server,
        options,
        withoutPassword(location),
        folder === null ? '--keys FILE` and `sluice serve --keys FILE` change' : `--data ${folder}\` changes`,
        sluice.engine.abilities.durability,
        tellCallbacks(callbacks, folder),
        input.isJson,
      )
      const signal = await stopped
      say(
        input.isJson,
        { event: 'stopping', signal },
        `\n${signal}: finishing what is under way. Ctrl-C exits at once.`,
      )
      await server.close()
    } finally {
      await sluice.close()
    }
    say(input.isJson, { event: 'stopped' }, 'Stopped. Everything that was acknowledged is kept.')
    return 0
  },
}

/** As `open` takes it. A server has its data in a place of its own: another server is none. */
function readLocation(input: Input): string {
  const data = input.value('data') ?? './data'
  if (/^https?:/i.test(data))
    throw new UsageError('--data names a server. Give the folder or the broker that the server is to serve.')
  return data === ':memory:' || isUrl(data) ? data : resolve(data)
}

function readDurability(input: Input): keyof typeof DURABILITIES | undefined {
  const given = input.value('durability')
  if (given === undefined) return undefined
  if (Object.hasOwn(DURABILITIES, given)) return given as keyof typeof DURABILITIES
  throw new UsageError(`--durability is '${given}'; it must be one of ${Object.keys(DURABILITIES).join(', ')}.`)
}

function serverOptions(input: Input, folder: string | null): ServerOptions {
  const port = input.count('port', 0, 65_535)
  const host = input.value('host')
  const maxQueues = input.count('max-queues', 0, Number.MAX_SAFE_INTEGER)
  return {
    ...(port === undefined ? {} : { port }),
    ...(host === undefined ? {} : { host }),
    ...(maxQueues === undefined ? {} : { maxQueues }),
    keys: readKeys(input, folder),
    tls: readTls(input),
    ...(folder === null ? {} : { backupDir: folder }),
    behindProxy: input.has('behind-proxy'),
    allowedHosts: input.values('allowed-host'),
    log: { write: (line) => process.stderr.write(input.isJson ? line : formatLogLine(line)) },
  }
}

function readKeys(input: Input, folder: string | null): string | null {
  const given = input.value('keys')
  if (given === undefined) return folder === null ? null : join(folder, KEY_FILE)
  if (!existsSync(given))
    throw new UsageError(
      `--keys names '${given}', which is not there. \`sluice keys create --keys ${given}\` makes it.`,
    )
  return resolve(given)
}

function readTls(input: Input): ServerOptions['tls'] {
  const cert = input.value('tls-cert')
  const key = input.value('tls-key')
  if (cert === undefined && key === undefined) return null
  if (cert === undefined || key === undefined) throw new UsageError('--tls-cert and --tls-key are given together.')
  return { cert: resolve(cert), key: resolve(key) }
}

function announce(
  { url }: Server,
  { keys, behindProxy }: ServerOptions,
  data: string,
  keysAt: string,
  durability: keyof typeof DURABILITIES,
  callbacks: string,
  isJson: boolean,
): void {
  const isGuarded = typeof keys === 'string' && existsSync(keys)
  const access = isGuarded
    ? `with a key of ${keys}`
    : behindProxy === true
      ? 'nobody needs a key here: the proxy in front checks who calls'
      : `nobody needs a key here, and only this machine reaches it. \`sluice keys create ${keysAt} the first`
  const authorization = isGuarded ? ` -H "Authorization: Bearer $SLUICE_KEY"` : ''
  const where = data === ':memory:' ? 'in memory only' : data
  const text = `Sluice serves ${url}
  dashboard  ${url}/
  data       ${where} (durability '${durability}': ${DURABILITIES[durability]})
  access     ${access}
  callbacks  ${callbacks}
  try        curl${authorization} -d '{"to":"a@b.c"}' -H 'content-type: application/json' ${url}/v1/queues/email/jobs
Ctrl-C stops it.`
  say(
    isJson,
    { event: 'listening', url, dashboard: `${url}/`, data, durability, guarded: isGuarded, pid: process.pid },
    text,
  )
}

function say(isJson: boolean, event: object, text: string): void {
  process.stdout.write(`${isJson ? JSON.stringify(event) : text}\n`)
}

/** Resolves with the first signal to stop; a second one exits at once. */
function waitForSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    let isStopping = false
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      process.on(signal, () => {
        if (isStopping) process.exit(130)
        isStopping = true
        resolve(signal)
      })
    }
  })
}

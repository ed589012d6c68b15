/** The command line of the example. See README.md. */
import { parseArgs } from 'node:util'
import { checkRun } from './checks.ts'
import { readExamples, repeat } from './deliveries.ts'
import { createRandom } from './kills.ts'
import { BROKER_NAMES, type BrokerName, givenPlace, makeFolder, startBroker } from './place.ts'
import { formatReport, toJson } from './report.ts'
import { ingest } from './run.ts'

const USAGE = `Usage: node examples/webhook-ingest/main.ts [options]

Sends real GitHub deliveries through a queue and a topic over HTTP, kills the server in between, and checks that nothing
is lost, out of order, or done twice without a cause. Exits with 1 where a check fails.

  --data LOCATION  a new folder, or the URL of a broker: redis://…, amqp://…, kafka://… (default: a folder of its own)
  --broker NAME    starts a broker for the run, which is killed as well: redis, rabbitmq or kafka
  --rounds N       how many times each payload is sent (default 30)
  --kills N        how many times the server is killed (default 3)
  --seed N         replays the points of the kills (default: drawn, and printed)
  --json           one JSON document instead of text
  --help           this text
`

interface Options {
  readonly data: string | undefined
  readonly broker: BrokerName | undefined
  readonly rounds: number
  readonly kills: number
  readonly seed: number
  readonly json: boolean
  readonly help: boolean
}

async function main(): Promise<number> {
  const options = readOptions(process.argv.slice(2))
  if (typeof options === 'string') {
    process.stderr.write(`${options}\n\n${USAGE}`)
    return 2
  }
  if (options.help) {
    process.stdout.write(USAGE)
    return 0
  }
  const { data, broker, rounds, kills, seed, json } = options
  const { version, deliveries } = readExamples()
  const stopped = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.on(signal, () => stopped.abort(new Error(`stopped by ${signal}`)))
  try {
    await using place = await (broker !== undefined
      ? startBroker(broker)
      : data === undefined
        ? makeFolder()
        : givenPlace(data))
    const run = await ingest({
      place,
      deliveries: repeat(deliveries, rounds),
      kills,
      random: createRandom(seed),
      tell: (line) => process.stderr.write(`${line}\n`),
      signal: stopped.signal,
    })
    const checks = checkRun(run)
    const heading = { payloads: deliveries.length, version, rounds, seed }
    process.stdout.write(
      json ? `${JSON.stringify(toJson(heading, run, checks))}\n` : formatReport(heading, run, checks),
    )
    return checks.every(({ broken }) => broken.length === 0) ? 0 : 1
  } catch (error) {
    process.stderr.write(`webhook-ingest (seed ${seed}): ${(error as Error).message}\n`)
    return stopped.signal.aborted ? 130 : 1
  }
}

/** The options, or what is wrong with them. */
function readOptions(args: readonly string[]): Options | string {
  try {
    const { values } = parseArgs({
      args: [...args],
      options: {
        data: { type: 'string' },
        broker: { type: 'string' },
        rounds: { type: 'string', default: '30' },
        kills: { type: 'string', default: '3' },
        seed: { type: 'string', default: `${Math.floor(Math.random() * 1_000_000)}` },
        json: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    })
    const { data, json, help } = values
    if (data !== undefined && values.broker !== undefined) throw new Error('Name one of --data and --broker.')
    const broker = BROKER_NAMES.find((name) => name === values.broker)
    if (broker === undefined && values.broker !== undefined)
      throw new Error(`--broker is '${values.broker}'; it must be one of ${BROKER_NAMES.join(', ')}.`)
    return {
      data,
      broker,
      rounds: readWhole('rounds', values.rounds, 1, 1_000),
      kills: readWhole('kills', values.kills, 0, 100),
      seed: readWhole('seed', values.seed, 0, 4_294_967_295),
      json,
      help,
    }
  } catch (error) {
    return (error as Error).message
  }
}

function readWhole(name: string, text: string, min: number, max: number): number {
  const value = Number(text)
  if (/^\d{1,10}$/.test(text) && value >= min && value <= max) return value
  throw new Error(`--${name} is '${text}'; it must be a whole number from ${min} to ${max}.`)
}

process.exitCode = await main()

/** `sluice verify`: whether what is stored is whole, and whether what stores it can keep what Sluice promises. */
import { existsSync } from 'node:fs'
import { type Finding, verify as verifyPlace } from '../index.ts'
import { type Command, type Input, UsageError } from './command.ts'
import { credentialFor } from './credential.ts'
import { withoutPassword } from './opening.ts'
import { plain, print } from './plain.ts'
import { bytesText, createProgress } from './progress.ts'
import { runSuite } from './suite.ts'

export const verify: Command = {
  name: 'verify',
  usage: 'FOLDER | BACKUP | URL',
  about: `Checks a place and changes nothing.

a data folder  that nobody has open: its files against each other, the checksum of every page, the write-ahead log,
               and of every message and every key that is stored, and that no message is missing between two others
a backup       the same
a server       whether it answers and can store
a broker       whether it is set up such that nothing is lost: each setting that matters, and what to do about it

With --suite the scenarios of the conformance suite are run against a server or broker, on queues and topics whose names
begin with 'verify-'; they stay there, empty or not. Exits with 1 where anything is wrong.`,
  examples: [
    'sluice verify ./data',
    'sluice verify ./sluice-2026-01-31.backup --json',
    'sluice verify https://queue.example.com',
    'sluice verify redis://127.0.0.1 --durability disk',
    'sluice verify redis://127.0.0.1 --suite',
  ],
  options: {
    suite: { type: 'boolean', text: 'Run the conformance scenarios against the URL, too.' },
    durability: { type: 'string', value: 'LEVEL', text: "Of a broker: 'disk' or 'os', as it will be asked for." },
    copies: { type: 'string', value: 'N', text: 'Of a broker: on how many machines a message must be.' },
    grep: { type: 'string', value: 'TEXT', text: 'With --suite: only scenarios whose title has this.' },
  },
  async run(input) {
    const [location, ...rest] = input.words
    if (location === undefined || rest.length > 0) throw new UsageError('Name one data folder, backup or URL.')
    const isUrl = /^[a-z][a-z0-9+.-]*:\/\//i.test(location)
    if (!isUrl && !existsSync(location)) throw new UsageError(`There is no folder or file '${location}'.`)
    if (isUrl && !URL.canParse(location)) throw new UsageError('That URL cannot be read.')
    if (input.has('suite') && !isUrl)
      throw new UsageError('--suite is for a URL: the suite opens and ends folders of its own, see `npm run prove`.')
    return input.has('suite') ? verifyWithSuite(input, location) : verifyOnly(input, location)
  },
}

async function verifyOnly(input: Input, location: string): Promise<number> {
  const { kind, isGood, findings } = await look(input, location)
  print(
    input.isJson,
    { location: withoutPassword(location), kind, isGood, findings },
    describe(location, isGood, findings),
  )
  return isGood ? 0 : 1
}

async function look(input: Input, location: string) {
  const progress = createProgress()
  const url = /^https?:\/\//i.test(location) ? new URL(location) : null
  const credential = url === null ? undefined : credentialFor(url)
  try {
    return await verifyPlace(location, {
      onRead: (bytes) => progress.show(() => `${bytesText(bytes)} read`),
      ...(credential === undefined ? {} : { credential }),
      durability: readDurability(input.value('durability')),
      copies: input.count('copies', 1, 100),
    })
  } finally {
    progress.end()
  }
}

async function verifyWithSuite(input: Input, location: string): Promise<number> {
  const { kind, isGood, findings } = await look(input, location)
  if (!input.isJson) process.stdout.write(describe(location, isGood, findings))
  if (!isGood) {
    if (input.isJson)
      process.stdout.write(`${JSON.stringify({ location: withoutPassword(location), kind, isGood, findings })}\n`)
    return 1
  }
  const results = await runSuite(location, input.value('grep') ?? '', (line) => {
    if (!input.isJson) process.stdout.write(line)
  })
  const failed = results.filter(({ status }) => status === 'failed').length
  const passed = results.filter(({ status }) => status === 'passed').length
  print(
    input.isJson,
    { location: withoutPassword(location), kind, isGood: failed === 0 && passed > 0, findings, scenarios: results },
    `${passed} scenarios hold, ${failed} do not, ${results.length - passed - failed} are not for this engine.\n`,
  )
  return failed === 0 && passed > 0 ? 0 : 1
}

function readDurability(given: string | undefined): 'disk' | 'os' | undefined {
  if (given === undefined || given === 'disk' || given === 'os') return given
  throw new UsageError(`--durability is '${given}'; it must be disk or os.`)
}

const MARKS = { ok: 'ok', warn: 'WARN', refuse: 'WRONG' }

/** What others set up may hold anything: nothing of it acts on the terminal. */
function describe(location: string, isGood: boolean, findings: readonly Finding[]): string {
  const lines = findings.map(({ severity, title, reason, remedy }) => {
    const advice = remedy === '' ? '' : `\n         ${plain(remedy)}`
    return `  ${MARKS[severity].padEnd(5)}  ${plain(title)}: ${plain(reason)}${advice}\n`
  })
  return `${plain(withoutPassword(location))} ${isGood ? 'is whole' : 'is not as it must be'}\n${lines.join('')}`
}

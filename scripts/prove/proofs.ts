/**
 * The proofs that can be asked for by name. Each is done in parts, so that one that is stopped has proved what it did.
 *
 * A new one is an entry in `PROOFS`: a test file whose length is set by its environment, or a function.
 */
import { spawn } from 'node:child_process'
import { formatJudgements } from '../../src/conformance/judge.ts'
import { runBroker } from '../../test/faults/broker-run.ts'
import { runJournal } from '../../test/faults/journal-run.ts'
import type { Life, LifeOptions } from '../../test/faults/life.ts'
import { runNetwork } from '../../test/faults/network-run.ts'
import { replayCommand, runBatch, shrink } from '../../test/simulation/batch.ts'
import { BROKER_KINDS, type BrokerKind } from '../brokers/engines.ts'
import { ROOT } from './ledger.ts'

export interface PartOptions {
  readonly firstSeed: number
  readonly runs: number
  readonly threads: number
  readonly seconds: number
  readonly signal: AbortSignal
}

export interface PartOutcome {
  /** How many of `runs` were done. */
  readonly runs: number
  readonly operations: number
  readonly violations: number
  /** What went wrong, with what replays it. */
  readonly report: string
}

export interface Proof {
  readonly about: string
  readonly engine: string
  readonly fault: string
  readonly unit: string
  /** How many, unless the command says so. */
  readonly runs: number
  /** How many in one part. */
  readonly runsAPart: number
  /** Seeds that one of `runs` uses up; 0: a part has one seed. */
  readonly seedsARun: 0 | 1
  /** Whether a run lasts for `seconds`. */
  readonly lasts?: boolean
  run(options: PartOptions): Promise<PartOutcome>
}

/** Lives at a time over one broker. */
const BROKER_LIVES = 5

export const PROOFS: Readonly<Record<string, Proof>> = {
  simulation: {
    about: 'whole lives under virtual time: crashes in commits, a bad network, clocks, stuck workers; all checkers',
    engine: 'ledger over the memory log',
    fault: 'simulated: crashes, network, clocks, disks',
    unit: 'seeds',
    runs: 20_000,
    runsAPart: 500,
    seedsARun: 1,
    run: simulate,
  },
  differential: {
    about: 'the same lives on the SQLite log and on its specification, answer by answer',
    engine: 'embedded (SQLite log)',
    fault: 'compared with the memory log',
    unit: 'seeds',
    runs: 200,
    runsAPart: 20,
    seedsARun: 1,
    run: (options) =>
      runTests('test/simulation/differential.test.ts', options, {
        SLUICE_DIFFERENTIAL_SEEDS: options.runs,
        SLUICE_FIRST_SEED: options.firstSeed,
      }),
  },
  kills: {
    about: 'SIGKILL of a process that publishes and works, again and again on one folder',
    engine: 'embedded',
    fault: 'SIGKILL under load',
    unit: 'kills',
    runs: 1_000,
    runsAPart: 50,
    seedsARun: 0,
    run: (options) =>
      runTests('test/crash.test.ts', options, { CRASH_ROUNDS: options.runs, CRASH_SEED: options.firstSeed }),
  },
  sigterm: {
    about:
      'SIGTERM at a random instant, to the server or to a worker, under load: nothing acknowledged is lost, leases are given back within 1 s',
    engine: 'embedded, over HTTP',
    fault: 'SIGTERM under load',
    unit: 'rounds',
    runs: 50,
    runsAPart: 10,
    seedsARun: 0,
    run: (options) =>
      runTests('test/faults/sigterm.test.ts', options, {
        SLUICE_SIGTERM_ROUNDS: options.runs,
        SLUICE_SIGTERM_RELEASE_MS: 1_000,
        SLUICE_SEED: options.firstSeed,
      }),
  },
  network: {
    about: 'clients over a network that delays, cuts and swallows, for --seconds each, ten at a time; all checkers',
    engine: 'embedded, over HTTP',
    fault: 'network: delays, cuts, half-open',
    unit: 'runs',
    runs: 50,
    runsAPart: 10,
    seedsARun: 1,
    lasts: true,
    run: network,
  },
  journal: {
    about:
      'processes that share a journal in memory: owners that die, hang and lose letters, for --seconds each, ten at a time',
    engine: 'shared, over a memory journal',
    fault: 'owners die in appends, hang; letters are lost; the broker is full',
    unit: 'runs',
    runs: 50,
    runsAPart: 10,
    seedsARun: 1,
    run: (options) =>
      runLives(options, 'SLUICE_JOURNAL_SECONDS', ({ seed, seconds, signal }) =>
        runJournal({ seed, seconds, signal }).then((life) => [life]),
      ),
  },
  ...Object.fromEntries(BROKER_KINDS.map((kind) => [kind.name.toLowerCase(), brokerProof(kind)])),
  'crash-states': {
    about: 'what a power cut may leave of a recorded run, opened and read again',
    engine: 'embedded',
    fault: 'power cut, whole engine',
    unit: 'states',
    runs: 2_500,
    runsAPart: 250,
    seedsARun: 0,
    run: (options) =>
      runTests('test/power-loss.test.ts', options, {
        POWER_LOSS_STATES: options.runs,
        POWER_LOSS_SEED: options.firstSeed,
      }),
  },
  'log-crash-states': {
    about:
      'the same on the log alone; of each 250: 250 of a run, 1,000 while a folder is made or given up, 250 within a recovery',
    engine: 'SQLite log',
    fault: 'power cut, also in recovery',
    unit: 'states',
    runs: 2_500,
    runsAPart: 250,
    seedsARun: 0,
    run: (options) =>
      runTests('test/logs/sqlite-power-loss.test.ts', options, {
        POWER_LOSS_STATES: options.runs,
        SLUICE_SEED: options.firstSeed,
      }),
  },
}

function network(options: PartOptions): Promise<PartOutcome> {
  return runLives(options, 'SLUICE_NETWORK_SECONDS', async (life) => [await runNetwork(life)])
}

function brokerProof(kind: BrokerKind): Proof {
  return {
    about: `${kind.name} that is killed, stands still and loses connections, with owners that die, for --seconds each; all checkers`,
    engine: kind.name,
    fault: 'broker killed, paused and cut off; owners killed',
    unit: 'runs',
    runs: 20,
    runsAPart: BROKER_LIVES,
    seedsARun: 1,
    lasts: true,
    // One broker for all lives of a part, and what happens to it happens to all of them.
    run: ({ runs, firstSeed, ...options }) =>
      runLives({ ...options, firstSeed, runs: 1 }, 'SLUICE_BROKER_SECONDS', ({ seconds, signal }) =>
        runBroker({ kind, lives: runs, seed: firstSeed, seconds, signal }),
      ).then((part) => ({ ...part, runs: part.runs * runs })),
  }
}

/** Lives side by side, each with a seed of its own, and what their histories say. */
async function runLives(
  { firstSeed, runs, seconds, signal }: PartOptions,
  variable: string,
  start: (options: LifeOptions) => Promise<readonly Life[]>,
): Promise<PartOutcome> {
  const started = Array.from({ length: runs }, async (_, i) => {
    const lives = await start({ seed: firstSeed + i, seconds, signal })
    return lives.map((life, n) => ({ seed: firstSeed + i + n, ...life }))
  })
  const done = (await Promise.all(started)).flat()
  const broken = done.filter(({ judgements }) => judgements.some(({ verdict }) => verdict.status === 'violated'))
  const operations = done.reduce((sum, life) => sum + life.operations, 0)
  const report = broken
    .map(({ seed, judgements }) => `SLUICE_SEED=${seed} ${variable}=${seconds}\n${formatJudgements(judgements)}`)
    .join('\n')
  return { runs: signal.aborted ? 0 : runs, operations, violations: broken.length, report }
}

async function simulate({ firstSeed, runs, threads, signal }: PartOptions): Promise<PartOutcome> {
  const { seeds, operations, failures } = await runBatch({ firstSeed, seeds: runs, threads, signal })
  const reports = failures.map(({ seed, check, message }) => `seed ${seed} breaks ${check}: ${message}`)
  const [first] = failures
  if (first !== undefined) {
    const { options, result } = await shrink(first.seed, first.check)
    const witness = (result.failure?.witness ?? []).map((event) => JSON.stringify(event))
    reports.push(`Replay it: ${replayCommand(options)}`, `${result.failure?.message}`, ...witness)
  }
  return { runs: seeds, operations, violations: failures.length, report: reports.join('\n') }
}

/** A test file, with its length and seed in the environment. Where it fails, its output is the report. */
function runTests(
  file: string,
  { runs, signal }: PartOptions,
  settings: Readonly<Record<string, number>>,
): Promise<PartOutcome> {
  return new Promise((resolve, reject) => {
    const env = Object.fromEntries(Object.entries(settings).map(([name, value]) => [name, `${value}`]))
    const child = spawn(process.execPath, ['--test', '--test-reporter=tap', file], {
      cwd: ROOT,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const stop = () => child.kill('SIGTERM')
    signal.addEventListener('abort', stop)
    let output = ''
    child.stdout.setEncoding('utf8').on('data', (text) => (output += text))
    child.on('error', reject)
    child.on('close', (code) => {
      signal.removeEventListener('abort', stop)
      if (signal.aborted) return resolve({ runs: 0, operations: 0, violations: 0, report: '' })
      const skipped = /^# skipped ([1-9]\d*)/m.test(output)
      if (skipped) return reject(new Error(`${file} could not be run here:\n${output}`))
      const operations = [...output.matchAll(/(\d+) (?:acknowledged|operations|states opened)/g)].reduce(
        (sum, [, count]) => sum + Number(count),
        0,
      )
      const failed = Number(/^# fail (\d+)/m.exec(output)?.[1] ?? 1)
      const report =
        code === 0
          ? ''
          : `${Object.entries(env)
              .map((pair) => pair.join('='))
              .join(' ')} node --test ${file}\n${output}`
      resolve({ runs, operations, violations: code === 0 ? 0 : Math.max(failed, 1), report })
    })
  })
}

/** `sluice jobs get | cancel`: one job of a server. */
import { findNearest } from '../index.ts'
import { clientOf, URL_OPTION } from './client.ts'
import { type Command, UsageError } from './command.ts'

const ACTS = ['get', 'cancel']
const MAX_WAIT_MS = 60_000
/** What a terminal would act on; an error of a worker may hold anything. */
const CONTROL = /\p{Cc}/u

export const jobs: Command = {
  name: 'jobs',
  usage: 'get ID | cancel ID',
  about:
    'Shows a job: its status, attempts, result or last error. With --wait-ms it waits for the job to be settled.\n`cancel` ends a job that is not settled; a worker that has it loses its lease.',
  examples: [
    'sluice jobs get email:k3x9ab:17',
    'sluice jobs get email:k3x9ab:17 --wait-ms 5000 --json',
    'sluice jobs cancel email:k3x9ab:17',
  ],
  options: {
    url: URL_OPTION,
    'wait-ms': {
      type: 'string',
      value: 'N',
      text: `Wait up to N milliseconds, at most ${MAX_WAIT_MS}, for it to be settled.`,
    },
  },
  async run(input) {
    const [act = '', id, ...rest] = input.words
    if (!ACTS.includes(act)) {
      const nearest = findNearest(act, ACTS)
      throw new UsageError(
        `Say what to do: sluice jobs get ID, or sluice jobs cancel ID.${nearest === null ? '' : ` Did you mean '${nearest}'?`}`,
      )
    }
    if (id === undefined || rest.length > 0) throw new UsageError(`sluice jobs ${act} takes the id of one job.`)
    const client = clientOf(input)
    const waitMs = input.count('wait-ms', 0, MAX_WAIT_MS)
    if (waitMs !== undefined && act === 'cancel') throw new UsageError('--wait-ms has no meaning with cancel.')
    const path = `/v1/jobs/${encodeURIComponent(id)}`
    const text = await client.call(waitMs === undefined ? path : `${path}?waitMs=${waitMs}`, {
      method: act === 'get' ? 'GET' : 'DELETE',
    })
    process.stdout.write(input.isJson ? `${text}\n` : describe(JSON.parse(text) as Record<string, unknown>))
    return 0
  },
}

/** A member a line; times as dates. */
function describe(job: Record<string, unknown>): string {
  const rows = Object.entries(job).map(([name, value]) => {
    if (name.endsWith('AtMs') && typeof value === 'number')
      return [name.slice(0, -'Ms'.length), new Date(value).toISOString()] as const
    return [name, typeof value === 'string' && !CONTROL.test(value) ? value : JSON.stringify(value)] as const
  })
  const width = Math.max(...rows.map(([name]) => name.length)) + 2
  return rows.map(([name, value]) => `${name.padEnd(width)}${value}\n`).join('')
}

import { parseJobId } from '../../job-id.ts'
import type { BeginEvent, EndEvent, SeenJob } from '../history.ts'
import type { Check, Checker, Court } from './checker.ts'
import { getOrMake } from './tracking.ts'

interface Sighting {
  readonly at: number
  readonly job: SeenJob
  readonly end: EndEvent
}

interface Done {
  readonly at: number
  readonly result: string | undefined
  readonly end: EndEvent
}

const TERMINAL: ReadonlySet<string> = new Set(['completed', 'failed', 'cancelled', 'expired'])

/**
 * What is told of a job only goes forward: attempts and version never fall from one answer to a question that was asked
 * after it; a terminal status and its result stay. A job that was acknowledged as done shows as completed with that
 * result, and none completes that nobody settled as done.
 */
export const jobPhase: Checker = {
  name: 'job-phase',
  promises: ['P10'],
  holds: 'The attempt and phase of a job only rise; a terminal status and its result never change.',
  create: (court) => new JobPhase(court),
}

class JobPhase implements Check {
  readonly #court: Court
  readonly #jobs = new Map<string, Sighting[]>()
  /** Acknowledged as done, by `queue/offset`. */
  readonly #done = new Map<string, Done>()
  /** Sent as done, with each result, by `queue/offset`. */
  readonly #claims = new Map<string, Set<string | undefined>>()

  constructor(court: Court) {
    this.#court = court
  }

  onBegin({ call }: BeginEvent): void {
    if (call.kind !== 'settle' || call.outcome !== 'done' || call.group !== '') return
    for (const offset of call.offsets)
      getOrMake(this.#claims, `${call.topic}/${offset}`, () => new Set()).add(call.result)
  }

  onEnd({ call }: BeginEvent, end: EndEvent, beganAt: number): void {
    const { answer } = end
    if (call.kind === 'settle' && call.outcome === 'done' && call.group === '' && answer.status === 'settled') {
      for (const offset of call.offsets)
        if (!answer.lost.includes(offset))
          this.#done.set(`${call.topic}/${offset}`, { at: this.#court.now, result: call.result, end })
    }
    if (answer.status === 'found' || answer.status === 'terminal') this.#see(answer.job, end, beganAt)
  }

  #see(job: SeenJob, end: EndEvent, beganAt: number): void {
    const sightings = getOrMake(this.#jobs, job.job, () => [])
    for (let i = sightings.length - 1; i >= 0; i--) {
      const earlier = sightings[i] as Sighting
      if (earlier.at >= beganAt) continue
      this.#compare(earlier, job, end)
      break
    }
    // Of those that are the same only the first matters.
    const last = sightings.at(-1)
    if (last === undefined || last.job.version !== job.version) sightings.push({ at: this.#court.now, job, end })
    this.#compareWithSettles(job, end, beganAt)
  }

  #compare({ job: before, end: earlier }: Sighting, job: SeenJob, end: EndEvent): void {
    this.#court.exercised()
    const fell = job.attempts < before.attempts || job.version < before.version
    const was = `${before.status}, attempt ${before.attempts}, version ${before.version}`
    const is = `${job.status}, attempt ${job.attempts}, version ${job.version}`
    if (fell) this.#court.violated(`${job.job} was ${was} and later ${is}`, [earlier, end])
    if (TERMINAL.has(before.status) && (job.status !== before.status || job.result !== before.result))
      this.#court.violated(
        `${job.job} had ended (${was}, result ${before.result}) and is ${is}, result ${job.result}`,
        [earlier, end],
      )
  }

  #compareWithSettles(job: SeenJob, end: EndEvent, beganAt: number): void {
    const place = parseJobId(job.job)
    if (place?.place.kind !== 'offset') return
    const name = `${place.queue}/${place.place.offset}`
    const done = this.#done.get(name)
    if (done !== undefined) this.#court.exercised()
    if (done !== undefined && done.at < beganAt && (job.status !== 'completed' || job.result !== done.result))
      this.#court.violated(
        `${job.job} was done with the result ${done.result}, and is ${job.status} with ${job.result}`,
        [done.end, end],
      )
    if (job.status === 'completed' && this.#claims.get(name)?.has(job.result) !== true)
      this.#court.violated(`${job.job} is completed with the result ${job.result}, which nobody settled it with`, [end])
  }
}

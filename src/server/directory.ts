/**
 * Which queues and topics there are, as far as this server needs to know: their kind, so that a job is not added to a
 * topic, and the tag that is part of the ids of a queue's jobs. The first use of a name declares it with the defaults,
 * up to `maxQueues` names; a declaration by `PUT` is a deliberate act and has no such bound.
 */
import { SluiceError } from '../errors.ts'
import type { Declaration, DeclareOutcome, Engine, OffsetProblem, Queue, Sluice } from '../index.ts'
import { offsetError } from '../outcomes.ts'

export interface Entry {
  readonly kind: 'queue' | 'topic'
  readonly name: string
  readonly tag: string
  /** Knows the schema that this process gave it, if any. */
  readonly noun: Pick<Queue, 'schema'>
}

/** At the limit the names are asked for again, no more often than this, since this process may have declared some itself. */
const RELOAD_MS = 1_000

export class Directory {
  readonly #sluice: Sluice
  readonly #engine: Engine
  readonly #maxQueues: number
  readonly #entries = new Map<string, Entry>()
  /** First uses under way, so that a burst on a new name declares it once. */
  readonly #declaring = new Map<string, Promise<Entry>>()
  /** Names that exist in the engine or are being made; asked for once. */
  #names: Promise<Set<string>> | null = null
  #namesAtMs = 0
  /** First uses that were let in and are not declared yet. */
  readonly #making = new Set<string>()

  constructor(sluice: Sluice, maxQueues: number) {
    this.#sluice = sluice
    this.#engine = sluice.engine
    this.#maxQueues = maxQueues
  }

  /** The entry where it is known already: the path of nearly every call. */
  peek(kind: Entry['kind'], name: string): Entry | undefined {
    const entry = this.#entries.get(name)
    if (entry !== undefined && entry.kind !== kind) throw wrongKind(entry)
    return entry
  }

  /** The entry, declared with the defaults where it is new. */
  async use(kind: Entry['kind'], name: string): Promise<Entry> {
    const known = this.peek(kind, name)
    if (known !== undefined) return known
    const under = this.#declaring.get(name)
    if (under !== undefined) {
      await under.catch(() => {})
      return this.use(kind, name)
    }
    const declaring = this.#useFirst(kind, name)
    this.#declaring.set(name, declaring)
    try {
      return await declaring
    } finally {
      this.#declaring.delete(name)
    }
  }

  /** The entry of something that exists, or `QUEUE_NOT_FOUND`, `TOPIC_NOT_FOUND`: reading declares nothing. */
  async find(kind: Entry['kind'], name: string): Promise<Entry> {
    const known = this.peek(kind, name)
    if (known !== undefined) return known
    const { topics } = await this.#engine.stats()
    const found = topics.find((topic) => topic.name === name)
    if (found === undefined) throw notFound(kind, name)
    if (found.kind !== kind) throw wrongKind(found)
    return this.use(kind, name)
  }

  /** Declares, and throws what is not a declaration. */
  async declare(declaration: Declaration): Promise<DeclareOutcome & { status: 'declared' }> {
    const [outcome] = await this.#engine.declare([declaration])
    if (outcome?.status === 'declared') {
      const { kind, name } = declaration
      if (kind !== 'group') {
        this.#entries.set(name, {
          kind,
          name,
          tag: outcome.tag,
          noun: kind === 'queue' ? this.#sluice.queue(name) : this.#sluice.topic(name),
        })
        await this.#names?.then((names) => names.add(name))
      }
      return outcome
    }
    if (outcome?.status === 'conflict') throw new SluiceError('DECLARED_DIFFERENTLY', outcome.message)
    if (outcome?.status === 'not-found')
      throw notFound('topic', declaration.kind === 'group' ? declaration.topic : declaration.name)
    throw offsetError(declaration.kind === 'group' ? declaration.topic : declaration.name, outcome as OffsetProblem)
  }

  /**
   * What a Sluice on another machine declares, as a list of outcomes. Its first use of a name is one here, too, so new
   * names are bounded by `maxQueues`.
   */
  async declareForRemote(declarations: readonly Declaration[]): Promise<readonly DeclareOutcome[]> {
    for (const { kind, name } of declarations) if (kind !== 'group') await this.#checkRoom(kind, name)
    const outcomes = await this.#engine.declare(declarations)
    const names = await this.#loadNames()
    for (const [i, { kind, name }] of declarations.entries()) {
      const outcome = outcomes[i]
      if (kind === 'group' || outcome?.status !== 'declared') continue
      const noun = kind === 'queue' ? this.#sluice.queue(name) : this.#sluice.topic(name)
      this.#entries.set(name, { kind, name, tag: outcome.tag, noun })
      names.add(name)
    }
    return outcomes
  }

  /** The names there are. Throws where `name` would be one more than `maxQueues`. */
  async #checkRoom(kind: Entry['kind'], name: string): Promise<Set<string>> {
    let names = await this.#loadNames()
    if (!names.has(name) && names.size >= this.#maxQueues && performance.now() - this.#namesAtMs > RELOAD_MS) {
      this.#names = null
      names = await this.#loadNames()
    }
    if (names.has(name) || names.size < this.#maxQueues) return names
    throw new SluiceError(
      kind === 'queue' ? 'QUEUE_NOT_FOUND' : 'TOPIC_NOT_FOUND',
      `There is no ${kind} '${name}', and first use makes no more: there are ${names.size} queues and topics, the limit of \`maxQueues\`. Declare it with PUT /v1/${kind}s/${name}.`,
      { limit: this.#maxQueues },
    )
  }

  async #useFirst(kind: Entry['kind'], name: string): Promise<Entry> {
    const names = await this.#checkRoom(kind, name)
    const isNew = !names.has(name)
    // Counted before it is made, so that a burst of new names does not pass the limit.
    names.add(name)
    this.#making.add(name)
    try {
      await this.declare({ kind, name, settings: {} })
      return this.#entries.get(name) as Entry
    } catch (error) {
      if (isNew) names.delete(name)
      throw error
    } finally {
      this.#making.delete(name)
    }
  }

  #loadNames(): Promise<Set<string>> {
    if (this.#names !== null) return this.#names
    this.#namesAtMs = performance.now()
    this.#names = this.#engine.stats().then(
      ({ topics }) => new Set([...topics.map((topic) => topic.name), ...this.#making]),
      (error: unknown) => {
        this.#names = null
        throw error
      },
    )
    return this.#names
  }
}

export function notFound(kind: Entry['kind'], name: string): SluiceError {
  return kind === 'queue'
    ? new SluiceError(
        'QUEUE_NOT_FOUND',
        `There is no queue '${name}'. Declare it, or add a job: the first use declares it.`,
      )
    : new SluiceError(
        'TOPIC_NOT_FOUND',
        `There is no topic '${name}'. Declare it, or publish to it: the first use declares it.`,
      )
}

function wrongKind({ kind, name }: { kind: Entry['kind']; name: string }): SluiceError {
  return new SluiceError('DECLARED_DIFFERENTLY', `'${name}' is a ${kind}: use /v1/${kind}s/${name}, or another name.`)
}

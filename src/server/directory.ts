/**
 * Which queues and topics there are, as far as this server needs to know: their kind, so that a job is not added to a
 * topic, and the tag that is part of the ids of a queue's jobs. The first use of a name declares it with the defaults,
 * up to `maxQueues` names; a declaration by `PUT` is a deliberate act and has no such bound.
 */
import { SluiceError } from '../errors.ts'
import type { Declaration, DeclareOutcome, Engine, OffsetProblem, Queue, Sluice, TopicStats } from '../index.ts'
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
/** Groups that a topic may have for one more to be declared over HTTP: each is state that is kept. */
const MAX_GROUPS = 1_000

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
  /** Groups of topics, as far as they were asked for. */
  readonly #groups = new Map<string, Promise<Set<string> | undefined>>()
  /** Under way, and waiting for that. */
  #lastList: Promise<unknown> | undefined
  #nextList: Promise<readonly TopicStats[]> | null = null
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
    const found = (await this.#list()).find((topic) => topic.name === name)
    if (found === undefined) throw notFound(kind, name)
    if (found.kind !== kind) throw wrongKind(found)
    return this.use(kind, name)
  }

  /** Declares, and throws what is not a declaration. */
  async declare(declaration: Declaration): Promise<DeclareOutcome & { status: 'declared' }> {
    if (declaration.kind === 'group') await this.#checkGroupRoom(declaration.topic, declaration.name)
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
    const making: string[] = []
    const made = new Set<string>()
    const fresh = new Map<string, Set<string>>()
    try {
      // Each is counted before the next is looked at, so that neither a long list nor a burst passes the limit.
      for (const declaration of declarations) {
        if (declaration.kind === 'group') await this.#checkGroupRoom(declaration.topic, declaration.name, fresh)
        else if (await this.#begin(declaration.kind, declaration.name)) making.push(declaration.name)
      }
      const outcomes = await this.#engine.declare(declarations)
      for (const [i, { kind, name }] of declarations.entries()) {
        const outcome = outcomes[i]
        if (kind === 'group' || outcome?.status !== 'declared') continue
        const noun = kind === 'queue' ? this.#sluice.queue(name) : this.#sluice.topic(name)
        this.#entries.set(name, { kind, name, tag: outcome.tag, noun })
        made.add(name)
      }
      return outcomes
    } finally {
      const names = await this.#loadNames()
      for (const name of making) {
        this.#making.delete(name)
        if (!made.has(name)) names.delete(name)
      }
    }
  }

  /** Counts a name as one that is being made; whether it is new. */
  async #begin(kind: Entry['kind'], name: string): Promise<boolean> {
    const names = await this.#checkRoom(kind, name)
    if (names.has(name)) return false
    names.add(name)
    this.#making.add(name)
    return true
  }

  /** Throws where a group would be one more than MAX_GROUPS of its topic. `fresh`: groups of topics that are made in this call. */
  async #checkGroupRoom(topic: string, group: string, fresh = new Map<string, Set<string>>()): Promise<void> {
    let groups = (await this.#loadGroups(topic)) ?? fresh.get(topic)
    if (groups === undefined) {
      groups = new Set()
      fresh.set(topic, groups)
    }
    if (groups.has(group)) return
    if (groups.size >= MAX_GROUPS && !fresh.has(topic)) {
      // Some may have been forgotten since.
      this.#groups.delete(topic)
      groups = (await this.#loadGroups(topic)) ?? groups
    }
    if (groups.size >= MAX_GROUPS)
      throw new SluiceError(
        'GROUP_NOT_FOUND',
        `There is no group '${group}' on the topic '${topic}', and it has ${groups.size} others, the limit. Forget those that are not used.`,
        { limit: MAX_GROUPS },
      )
    groups.add(group)
  }

  /** Of a topic that exists; what is asked of others is not kept. */
  #loadGroups(topic: string): Promise<Set<string> | undefined> {
    const known = this.#groups.get(topic)
    if (known !== undefined) return known
    const loading = this.#list().then((topics) => {
      const found = topics.find(({ name }) => name === topic)
      return found === undefined ? undefined : new Set(found.groups.map(({ name }) => name))
    })
    this.#groups.set(topic, loading)
    const drop = (): void => {
      if (this.#groups.get(topic) === loading) this.#groups.delete(topic)
    }
    loading.then((groups) => groups ?? drop(), drop)
    return loading
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
    const isNew = await this.#begin(kind, name)
    try {
      await this.declare({ kind, name, settings: {} })
      return this.#entries.get(name) as Entry
    } catch (error) {
      if (isNew) (await this.#loadNames()).delete(name)
      throw error
    } finally {
      this.#making.delete(name)
    }
  }

  /** What there is, asked for after this call. Calls that come while one is asked for share the next, however many. */
  #list(): Promise<readonly TopicStats[]> {
    this.#nextList ??= (async () => {
      await this.#lastList
      this.#lastList = this.#nextList?.catch(() => {})
      this.#nextList = null
      return (await this.#engine.stats()).topics
    })()
    return this.#nextList
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

/** What a scenario is: one promise, shown through the nouns, on any engine. */
import type { EngineAbilities } from '../engine/abilities.ts'
import type { Queue, QueueOptions, Sluice, Topic, TopicOptions } from '../index.ts'

export type Noun = 'queue' | 'topic' | 'job' | 'call' | 'flow control' | 'persistence'

export interface Scenario {
  /** Unique, kebab-case. */
  readonly id: string
  readonly noun: Noun
  /** A promise, as a sentence. */
  readonly title: string
  /** Such as 'P4'. */
  readonly promises: readonly string[]
  /** Abilities without which there is nothing to show; where one is refused, the matrix says no and why. */
  readonly needs?: readonly (keyof EngineAbilities)[]
  /** Rejects where the promise is broken. May tell what an emulation costs, to be printed. */
  // biome-ignore lint/suspicious/noConfusingVoidType: most have nothing to tell
  run(stage: Stage): Promise<string | undefined | void>
}

/** Where a scenario plays: an engine on a store of its own. */
export interface Stage {
  readonly sluice: Sluice
  readonly abilities: EngineAbilities
  /** A queue of this scenario's own; `name` tells several apart. */
  queue<P = unknown, R = unknown>(options?: QueueOptions, name?: string): Queue<P, R>
  topic<P = unknown>(options?: TopicOptions, name?: string): Topic<P>
  /** The same store as another process sees it, where the engine has more than one; else the same Sluice. */
  other(): Promise<Sluice>
  /** Ends in good order and opens the same store again. */
  restart(): Promise<void>
  /** The process that owns the store dies, without a word, and another opens it. */
  crash(): Promise<void>
}
